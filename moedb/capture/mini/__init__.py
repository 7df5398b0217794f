"""The trainer of qwen-moe-mini, the small Qwen2-MoE model that comes with the package."""
