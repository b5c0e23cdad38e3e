"""Learning from preferences over text: learners, losses, advantages; `exact` where all completions can be listed."""

from prefenvs.agents.text.direct import DirectAlignment as DirectAlignment
from prefenvs.agents.text.direct import DirectConfig as DirectConfig
from prefenvs.agents.text.evaluation import TextEvalCallback as TextEvalCallback
from prefenvs.agents.text.evaluation import TextEvaluation as TextEvaluation
from prefenvs.agents.text.evaluation import evaluate_text as evaluate_text
from prefenvs.agents.text.fine_tuning import BestOfN as BestOfN
from prefenvs.agents.text.fine_tuning import RewardWeighted as RewardWeighted
from prefenvs.agents.text.grpo import GRPO as GRPO
from prefenvs.agents.text.grpo import GRPO_VARIANTS as GRPO_VARIANTS
from prefenvs.agents.text.grpo import GRPOConfig as GRPOConfig
from prefenvs.agents.text.learner import TextConfig as TextConfig
from prefenvs.agents.text.learner import TextLearner as TextLearner
from prefenvs.agents.text.losses import PAIR_LOSSES as PAIR_LOSSES
from prefenvs.agents.text.losses import PairLogps as PairLogps
from prefenvs.agents.text.p3o import P3O as P3O
from prefenvs.agents.text.p3o import P3OConfig as P3OConfig
from prefenvs.agents.text.ppo import TokenPPO as TokenPPO
from prefenvs.agents.text.ppo import TokenPPOConfig as TokenPPOConfig
from prefenvs.agents.text.preference_pairs import PreferencePairs as PreferencePairs
from prefenvs.agents.text.preference_pairs import ask_pairs as ask_pairs
from prefenvs.agents.text.rewards import TextPreferenceConfig as TextPreferenceConfig
from prefenvs.agents.text.rewards import learn_reward as learn_reward
from prefenvs.agents.text.rloo import RLOO as RLOO
from prefenvs.agents.text.rloo import RLOOConfig as RLOOConfig
from prefenvs.agents.text.rso import RSO as RSO
