#!/bin/sh
# The main job: run the embedded model over IOI prompts once, then ask what its experts did.
set -eu
show() { printf '\n$ moedb'; for word in "$@"; do case $word in *' '*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac; done; printf '\n'; moedb "$@"; }

mkdir -p demo
show capture qwen-ioi
show runs
show query ioi-logit-diff
show query concentration --limit 12
show sql "from expert_frequency() order by frequency desc limit 10"
show sql "from routing_by_class(key := 'role') where value = 'end' order by lift desc limit 10"
show export ioi-logit-diff -o demo/ioi-logit-diff.tex --columns value,n_prompts,accuracy,mean_logit_diff --caption "IOI by template" --label tab:ioi
show plot expert-frequency -o demo/expert-frequency.png
