"""A reward model: a language model's backbone with one number on top."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

from outlay.catalog import Paper
from outlay.errors import InputError, MissingExtra
from outlay.models.base import Loaded, ModelSpec, seeded
from outlay.models.quiet import no_progress_bar
from outlay.models.saving import save_transformer
from outlay.models.tokenizers import open_tokenizer
from outlay.schedules.base import require


@dataclass(frozen=True)
class RewardModel:
    """A model that gives a whole text one score: transformers' sequence classification with one label.

    The score is read off the last token that is not padding. The backbone's weights are taken over from a language model, and the head is drawn; or
    both come from a reward model that was trained before. Exactly one of the two fields is given.

    Args:
        backbone: the language model, such as ``{pretrained: {path: runs/sft/model}}`` or ``transformer``.
        path: folder or hub name of a reward model; exports of this one are such folders.
    """

    title: ClassVar[str] = "Reward model"
    paper: ClassVar[Paper | None] = None

    backbone: ModelSpec | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("backbone", "path") if getattr(self, name) is not None]
        require(
            len(given) == 1,
            f"exactly one of backbone and path says what the reward model begins with, found {' and '.join(given) or 'none'}",
        )

    def build(self, seed: int) -> Loaded:
        """Return the model; weights that are not loaded are drawn from the streams (seed, "model") and (seed, "model/head").

        Raises:
            MissingExtra: without transformers.
            InputError: when nothing can be loaded from the path, or the backbone has no sequence classification in transformers.
        """
        try:
            import transformers  # noqa: F401
        except ImportError:
            raise MissingExtra("transformers", "hf") from None
        return self._from_backbone(self.backbone, seed) if self.backbone is not None else self._from_folder(str(self.path), seed)

    def _from_backbone(self, backbone: ModelSpec, seed: int) -> Loaded:
        from transformers import AutoModelForSequenceClassification

        loaded = backbone.build(seed)
        language: Any = loaded.module
        if loaded.tokenizer is None or not hasattr(language, "base_model"):
            raise InputError(
                "a reward model begins with a language model such as models/transformer or models/pretrained; this one reads no text"
            )
        config = copy.deepcopy(language.config)
        config.num_labels, config.pad_token_id = 1, loaded.tokenizer.pad_token_id
        try:
            with seeded(seed, "model/head"):
                module: Any = AutoModelForSequenceClassification.from_config(config, dtype=next(language.parameters()).dtype)
        except ValueError as error:
            raise InputError(f"transformers has no sequence classification for {config.model_type!r}; take another architecture") from error
        module.base_model.load_state_dict(language.base_model.state_dict())
        return Loaded(module, loaded.tokenizer, save_transformer(loaded.tokenizer))

    def _from_folder(self, path: str, seed: int) -> Loaded:
        from transformers import AutoConfig, AutoModelForSequenceClassification

        try:
            config = AutoConfig.from_pretrained(path)
            named = (config.architectures or [""])[0]
            if not named.endswith("ForSequenceClassification") or config.num_labels != 1:
                raise InputError(
                    f"{path!r} holds {named or 'an unknown model'} and no reward model; begin with it as backbone: {{pretrained: ...}}"
                )
            with no_progress_bar():
                module = AutoModelForSequenceClassification.from_pretrained(path)
        except OSError as error:
            raise InputError(f"no reward model at {path!r}; accepted: a folder or a hub name ({str(error).splitlines()[0]})") from error
        tokenizer = open_tokenizer(path)
        module.config.pad_token_id = tokenizer.pad_token_id
        return Loaded(module, tokenizer, save_transformer(tokenizer))
