"""Calibration: do p-values, claims and intervals mean what they say?

Under a null, where there is nothing to find, p < 0.05 must come up in at most 7 % of cases and a claim at q < 0.05 in
at most 5 % of runs; a 95 % interval must cover the truth in 92 to 98 % of simulations. `cliffscope bench calibrate`
measures it for what the product prints, with the product's own functions. See docs/calibration.md.
"""
