#!/bin/sh
# A clone of a repository that lies in the mount, its status, a commit, a rebase, a repack; git itself says whether all
# is well.
set -eu
cd "$PLACE/mount"
export HOME="$PLACE/state" GIT_CONFIG_NOSYSTEM=1
git config --global user.name tests
git config --global user.email tests@localhost
git config --global safe.directory '*'
git init -q --initial-branch=main origin
(
    cd origin
    for round in 1 2 3 4 5 6 7 8; do
        for dir in a b c d; do
            mkdir -p "$dir"
            for file in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "$round $dir $file" >>"$dir/$file"; done
        done
        git add -A
        git commit -q -m "round $round"
    done
)
git clone -q "$PLACE/mount/origin" clone
git clone -q --no-hardlinks --no-local "$PLACE/mount/origin" packed
for repository in clone packed; do
    cd "$PLACE/mount/$repository"
    git fsck --full --strict
    [ -z "$(git status --porcelain)" ]
    git checkout -q -b side HEAD~3
    echo changed >>a/new && git add a/new
    git mv b/2 b/renamed
    [ "$(git status --porcelain | wc -l)" = 2 ]
    git commit -q -a -m changed
    git rebase -q main
    git gc -q --prune=now
    git fsck --full --strict
    [ -z "$(git status --porcelain)" ]
    # The index agrees with a tree that is read anew.
    git rm -q -r --cached . && git add -A && [ -z "$(git status --porcelain)" ]
done
echo "git: clone, status, rename, rebase, gc, fsck"
