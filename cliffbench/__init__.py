"""CliffBench: how often each method finds what was planted, and how often it finds what is not there.

An *instance* is an organism with its truth and one seed, made ready as a user of the product would; a *method* is one
function from an instance to `HeadScores`; a *score* compares what the method said with the truth. See docs/bench.md.
"""
