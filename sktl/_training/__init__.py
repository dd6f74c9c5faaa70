"""Training. Rule: one loop trains every network, and no estimator is imported here.

Reading order: `_rest_network` (what is trained), `_dataset` and `_data` (the training
data), `_losses`, `_soft_targets`, `_head_probe` and `_objective` (the objective),
`_settings` (the hyperparameters), `_net` and `_skorch_net` (the net), `_schedules`,
`_callbacks`, `_sparsity` and `_checkpoint` (called around the epochs), `_loop` (one
training run), `_trainer` (everything together).
"""
