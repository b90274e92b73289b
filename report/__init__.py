"""One HTML file that shows a run: verdict, trajectories, heads, before and after, and every rollout token by token."""
