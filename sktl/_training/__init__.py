"""The middle room of the cellar: training. Its rule: one loop trains every network, and no estimator is known here.

It reads in this order: `_rest_network` (what is trained), `_dataset` (the rows it sees), `_losses` and
`_soft_targets` (what it is to learn), `_head_probe` (how its head starts), `_net` and `_skorch_net` (the net),
`_schedules`, `_callbacks`, `_sparsity` and `_checkpoint` (what happens around its epochs), `_loop` (one training).
"""
