"""The analysis room: parameter, FLOP and memory formulas, comparisons, plots and reports."""
