"""`import contextlm.interop.lm_eval` makes lm_eval know the model `contextlm`, a checkpoint or a Hugging Face folder.

    python -m contextlm.interop.lm_eval run --model contextlm --model_args load=runs/my --tasks lambada_openai

is lm_eval's own program with that model. Importing this has an effect, like `huggingface.py` and nothing else here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs

from contextlm.inference.open_subject import standalone
from contextlm.inference.predictions import controlled
from contextlm.inference.sampling import continuation
from contextlm.inference.windows import Window, scored, sliding_windows


@register_model("contextlm")
class ContextLMEvaluation(TemplateLM):
    """A model for lm_eval's tasks.

    Args:
        load: a `--save` folder, an `iter_` folder of it, or a Hugging Face folder.
        batch_size: texts per forward pass.
        max_length: tokens that are read at once; the model's positions if not given.
        context_control: what the tokens receive in place of the prediction, for scoring; generation keeps it.
    """

    def __init__(
        self,
        load: str,
        batch_size: int | str = 8,
        max_length: int | str | None = None,
        context_control: str = "none",
        **_: Any,
    ) -> None:
        super().__init__()
        self.examined = standalone(load)
        self.batch_size = 8 if batch_size in ("auto", None) else int(batch_size)
        self.max_length = self.examined.num_positions if max_length is None else int(max_length)
        self.context_control = context_control

    @property
    def eot_token_id(self) -> int:
        """What stands before a text that has nothing before it."""
        end = self.examined.tokenizer.eod
        assert end is not None, "a tokenizer without an end-of-document token cannot begin a text"
        return end

    @property
    def tokenizer_name(self) -> str:
        """For lm_eval's cache of requests."""
        return self.examined.tokenizer.fingerprint

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids, none of them special."""
        return self.examined.tokenizer.encode(string)

    def get_model_info(self) -> dict[str, Any]:
        """The checkpoint's identity, which lm_eval writes into its results."""
        return self.examined.identity()

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts, cut into windows that predict each token once."""
        cut = [
            list(sliding_windows(self.tok_encode(request.args[0]), self.eot_token_id, self.max_length, self.max_length))
            for request in requests
        ]
        with controlled(self.examined, self.context_control):
            results = iter(scored(self.examined, [window for windows in cut for window in windows], self.batch_size))
        return [sum(sum(next(results).log_probabilities) for _ in windows) for windows in cut]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Of each continuation, given its context: the log-likelihood, and whether it is what greedy decoding gives."""
        windows = [
            Window((context + following)[-(self.max_length + 1) :][:-1], following)
            for _, context, following in requests
        ]
        with controlled(self.examined, self.context_control):
            results = scored(self.examined, windows, self.batch_size)
        return [(sum(result.log_probabilities), all(result.is_likeliest)) for result in results]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continuations up to a stop text, the end of a document or the most tokens; one text at a time, cached."""
        return [self._generate(*request.args) for request in requests]

    def _generate(self, context: str, options: dict[str, Any]) -> str:
        given = normalize_gen_kwargs(options, 256)
        stops, most = [stop for stop in given["until"] if stop], given["max_gen_toks"]
        tokenizer = self.examined.tokenizer
        room = self.max_length - most
        assert room > 0, f"max_gen_toks {most}: the model has {self.max_length} positions; give less"
        tokens: list[int] = []
        text = ""
        for token in continuation(
            self.examined,
            tokenizer.encode(context)[-room:],
            max_new_tokens=most,
            temperature=given["temperature"] if given["do_sample"] else 0,
            top_k=given.get("top_k"),
            top_p=given.get("top_p", 1.0),
        ):
            tokens.append(token)
            text = tokenizer.decode(tokens)
            if any(stop in text for stop in stops):
                break
        for stop in stops:
            text = text.split(stop)[0]
        return text


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
