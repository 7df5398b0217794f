"""Commands about stores: what they hold, whether they are sound, copying and deleting."""
