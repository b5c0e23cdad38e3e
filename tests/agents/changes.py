"""What a callback or a subclass may change of a learner while it learns."""

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback


class Once(BaseCallback):
    """Changes the learner once, when `run` is first called after so many steps."""

    def __init__(self, change, after):
        super().__init__()
        self.change, self.after, self.done = change, after, False

    def _on_step(self):
        return True

    def run(self):
        if self.model.num_timesteps >= self.after and not self.done:
            self.done = True
            torch.manual_seed(5)
            self.change(self.model)
        return True


def learn_changed(models, change, moment, *, after, steps):
    """Let each learn on from one seed, changed at a moment of callbacks or, as by a subclass, after its "train"."""
    for model in models:
        once = Once(change, after)
        torch.manual_seed(1)
        np.random.seed(1)
        if moment == "train":
            train = model.train
            model.train = lambda *arguments, train=train, once=once, **named: (train(*arguments, **named), once.run())
        else:
            setattr(once, moment, once.run)
        model.learn(steps, callback=once, reset_num_timesteps=False)
        assert once.done


def moves_weights(model):
    for param in model.policy.parameters():
        param.data = param.data * 0.5


def loads_state(optimizer):
    """Load the optimiser's own state, with greater means."""
    state = optimizer.state_dict()
    for values in state["state"].values():
        values["exp_avg"] = values["exp_avg"] * 10
    optimizer.load_state_dict(state)
