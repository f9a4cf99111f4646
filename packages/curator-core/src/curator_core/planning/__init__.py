"""From stages to a plan: checked, fused into groups, fitted to the machine. A plan is values; nothing starts."""
