"""The pure core: values and functions that decide who gets which GPUs."""
