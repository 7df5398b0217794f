"""Named queries asked again of clusters that are drawn anew: intervals for what they give."""
