"""The upper room of the cellar: estimators. Its rule: what users see of all estimators stands here, once.

It reads in this order: `_checked_table`, `_target_coding`, `_groups` and `_validation_split` (what `fit` is given),
`_backbone_parameter` and `_auto_depth` (which network, cut where), `_fit_tasks` and `_network_estimator` (a fit),
`_network_classifier` and `_network_regressor` (what is predicted), `_find_fitted` and `_footprint` (what others ask of
a fitted one), `_whole_copies` (what its copies hold).
"""
