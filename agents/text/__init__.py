"""Learning from preferences over text: losses, advantages, learners."""
