"""Objectives: what a batch teaches."""

from __future__ import annotations

from outlay.objectives.actor_critic import ActorCritic
from outlay.objectives.base import Objective
from outlay.objectives.cispo import Cispo
from outlay.objectives.classification import Classification
from outlay.objectives.dapo import Dapo
from outlay.objectives.dft import AnchoredFineTuning, DynamicFineTuning
from outlay.objectives.disco import Disco, DiscoB
from outlay.objectives.distillation import Distillation
from outlay.objectives.dler import Dler
from outlay.objectives.dno import DirectNash
from outlay.objectives.dpo import DirectPreference
from outlay.objectives.dr_grpo import DrGrpo
from outlay.objectives.f_divergence import FDivergence
from outlay.objectives.goal_conditioned import GoalConditionedReward
from outlay.objectives.grpo import Grpo
from outlay.objectives.gspo import Gspo
from outlay.objectives.hpt import Hpt
from outlay.objectives.key_tokens import KeyTokens
from outlay.objectives.kto import KahnemanTversky
from outlay.objectives.lite_ppo import LitePpo
from outlay.objectives.loss_reweighted import LossReweighted
from outlay.objectives.lp_reg import LpReg
from outlay.objectives.next_token import NextToken
from outlay.objectives.orpo import OddsRatioPreference
from outlay.objectives.own_loss import OwnLoss
from outlay.objectives.pass_at_n import PassAtN, PassAtNClassification
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.objectives.ppo import Ppo
from outlay.objectives.raft import Raft, RaftPlusPlus
from outlay.objectives.reinforce import Reinforce
from outlay.objectives.reinforce_plus_plus import ReinforcePlusPlus
from outlay.objectives.remax import Remax
from outlay.objectives.reward_model import RewardRanking
from outlay.objectives.rloo import Rloo
from outlay.objectives.simpo import SimplePreference
from outlay.objectives.slic import SequenceCalibration
from outlay.objectives.topr import Topr
from outlay.objectives.variational import Variational

METHODS: dict[str, type] = {
    "next_token": NextToken,
    "classification": Classification,
    "own_loss": OwnLoss,
    "loss_reweighted": LossReweighted,
    "variational": Variational,
    "dft": DynamicFineTuning,
    "asft": AnchoredFineTuning,
    "f_divergence": FDivergence,
    "pass_at_n": PassAtN,
    "pass_at_n_classification": PassAtNClassification,
    "distillation": Distillation,
    "policy_gradient": PolicyGradient,
    "reinforce": Reinforce,
    "grpo": Grpo,
    "dr_grpo": DrGrpo,
    "actor_critic": ActorCritic,
    "reinforce_plus_plus": ReinforcePlusPlus,
    "rloo": Rloo,
    "remax": Remax,
    "ppo": Ppo,
    "dapo": Dapo,
    "lite_ppo": LitePpo,
    "gspo": Gspo,
    "cispo": Cispo,
    "topr": Topr,
    "dler": Dler,
    "lp_reg": LpReg,
    "raft": Raft,
    "raft_pp": RaftPlusPlus,
    "dpo": DirectPreference,
    "simpo": SimplePreference,
    "orpo": OddsRatioPreference,
    "slic": SequenceCalibration,
    "kto": KahnemanTversky,
    "dno": DirectNash,
    "disco": Disco,
    "disco_b": DiscoB,
    "hpt": Hpt,
    "reward_model": RewardRanking,
    "goal_conditioned_reward_model": GoalConditionedReward,
    "key_tokens": KeyTokens,
}

__all__ = [
    "METHODS",
    "ActorCritic",
    "AnchoredFineTuning",
    "Cispo",
    "Classification",
    "Dapo",
    "DirectNash",
    "DirectPreference",
    "Disco",
    "DiscoB",
    "Distillation",
    "Dler",
    "DrGrpo",
    "DynamicFineTuning",
    "FDivergence",
    "GoalConditionedReward",
    "Grpo",
    "Gspo",
    "Hpt",
    "KahnemanTversky",
    "KeyTokens",
    "LitePpo",
    "LossReweighted",
    "LpReg",
    "NextToken",
    "Objective",
    "OddsRatioPreference",
    "OwnLoss",
    "PassAtN",
    "PassAtNClassification",
    "PolicyGradient",
    "Ppo",
    "Raft",
    "RaftPlusPlus",
    "Reinforce",
    "ReinforcePlusPlus",
    "Remax",
    "RewardRanking",
    "Rloo",
    "SequenceCalibration",
    "SimplePreference",
    "Topr",
    "Variational",
]
