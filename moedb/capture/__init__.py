"""Running models and recording what they do. The only part of moedb that imports torch."""
