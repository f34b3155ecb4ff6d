"""Keys that stand twice in one mapping of a YAML file, of which PyYAML would silently take the last."""

from __future__ import annotations


def repeated_keys(text: str) -> list[str]:
    """A sentence for each, in mappings within mappings too, in the order of the file. Raises yaml.YAMLError."""
    import yaml

    looked_at: set[int] = set()  # an alias is the node that it names, which may even hold itself

    def repeated(node: yaml.Node | None, where: str) -> list[str]:
        if not isinstance(node, yaml.MappingNode) or id(node) in looked_at:
            return []
        looked_at.add(id(node))
        problems, lines = [], dict[str, int]()
        for key, value in node.value:
            name, line = f"{where}{key.value}", key.start_mark.line + 1
            if name in lines:
                problems.append(f"{name}: is given twice (lines {lines[name]} and {line}); keep one")
            lines.setdefault(name, line)
            problems += repeated(value, f"{name}.")
        return problems

    return repeated(yaml.compose(text, Loader=yaml.SafeLoader), "")
