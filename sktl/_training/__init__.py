"""The middle room of the cellar: training. Its rule: one loop trains every network, and no estimator is known here.

It reads in this order: `_rest_network` (what is trained), `_dataset` and `_data` (what it is trained on), `_losses`,
`_soft_targets`, `_head_probe` and `_objective` (what it is to learn), `_settings` (how), `_net` and `_skorch_net` (the
net), `_schedules`, `_callbacks`, `_sparsity` and `_checkpoint` (what happens around its epochs), `_loop` (one
training), `_trainer` (all of it).
"""
