"""Text tasks whose completions can be listed: policies, rewards and answers as tables, and training without noise."""

from prefenvs.agents.text.exact.answers import TableReward as TableReward
from prefenvs.agents.text.exact.answers import answered as answered
from prefenvs.agents.text.exact.answers import draw_answered_pairs as draw_answered_pairs
from prefenvs.agents.text.exact.answers import draw_two as draw_two
from prefenvs.agents.text.exact.answers import fit_reward_table as fit_reward_table
from prefenvs.agents.text.exact.answers import listed_pairs as listed_pairs
from prefenvs.agents.text.exact.answers import one_hot as one_hot
from prefenvs.agents.text.exact.answers import some_responses as some_responses
from prefenvs.agents.text.exact.policies import ExactCurve as ExactCurve
from prefenvs.agents.text.exact.policies import completion_probabilities as completion_probabilities
from prefenvs.agents.text.exact.policies import memoryless_tree as memoryless_tree
from prefenvs.agents.text.exact.policies import share_of_best as share_of_best
from prefenvs.agents.text.exact.policies import standardised as standardised
from prefenvs.agents.text.exact.policies import total_variation as total_variation
from prefenvs.agents.text.exact.policies import tree_logprobs as tree_logprobs
from prefenvs.agents.text.exact.training import ExactPPO as ExactPPO
from prefenvs.agents.text.exact.training import SharedTable as SharedTable
from prefenvs.agents.text.exact.training import TablePairs as TablePairs
from prefenvs.agents.text.exact.training import descend as descend
from prefenvs.agents.text.exact.training import descent as descent
from prefenvs.agents.text.exact.training import train_grid as train_grid
