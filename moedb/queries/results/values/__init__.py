"""What cells are made of: values as other engines take them, estimates with their intervals."""
