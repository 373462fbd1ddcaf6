"""Models: what is trained."""

from __future__ import annotations

from outlay.models.autoencoder import VariationalAutoencoder
from outlay.models.base import Loaded, ModelSpec
from outlay.models.cnn import Cnn
from outlay.models.mlp import Mlp
from outlay.models.pretrained import Pretrained
from outlay.models.python import PythonModel
from outlay.models.resnet import ResNet
from outlay.models.reward_model import RewardModel
from outlay.models.transformer import Transformer

METHODS: dict[str, type] = {
    "transformer": Transformer,
    "pretrained": Pretrained,
    "mlp": Mlp,
    "cnn": Cnn,
    "resnet": ResNet,
    "python": PythonModel,
    "reward_model": RewardModel,
    "variational_autoencoder": VariationalAutoencoder,
}

__all__ = [
    "METHODS",
    "Cnn",
    "Loaded",
    "Mlp",
    "ModelSpec",
    "Pretrained",
    "PythonModel",
    "ResNet",
    "RewardModel",
    "Transformer",
    "VariationalAutoencoder",
]
