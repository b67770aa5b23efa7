//! Profiles: sections of `devenv.toml` that are laid over those of the same name when
//! the profile is asked for.

use crate::names::{did_you_mean, one_of};
use crate::node::{Data, Entry, Node};
use crate::problem::Draft;

/// The tree with the profile's sections laid over its own. Every value keeps the
/// position where it was written. A name that no profile has is an error.
pub(crate) fn select(mut tree: Node, name: &str, problems: &mut Vec<Draft>) -> Node {
    let root = tree.span;
    let profiles = tree.remove_entry("profile");
    let all: &[Entry] = profiles.as_ref().map_or(&[], |p| p.value.entries());
    let Some(profile) = all.iter().find(|e| e.key == name) else {
        let span = profiles.as_ref().map_or(root, |p| p.key_span);
        let names = || all.iter().map(|e| e.key.as_str());
        let draft = Draft::error(
            "config::unknown-profile",
            span,
            format!("devenv.toml has no profile {name:?}"),
        );
        problems.push(if all.is_empty() {
            draft
                .expected("a section [profile.NAME.…]; there is none")
                .help(format!(
                    "a profile is laid over the other sections: [profile.{name}.image.IMAGE]"
                ))
        } else {
            draft
                .expected(one_of(names()))
                .maybe_help(did_you_mean(name, names()))
        });
        return tree;
    };
    lay_over(&mut tree, &profile.value, &mut Vec::new());
    tree
}

/// Mappings are merged key by key, anything else takes the place of what is there.
/// `path` is where `base` stands.
fn lay_over<'t>(base: &mut Node, over: &'t Node, path: &mut Vec<&'t str>) {
    for entry in over.entries() {
        path.push(&entry.key);
        let merges = matches!(entry.value.data, Data::Map(_)) && !is_other_source(entry, path);
        match base.entry_mut(&entry.key) {
            Some(old) if merges && matches!(old.value.data, Data::Map(_)) => {
                lay_over(&mut old.value, &entry.value, path);
            }
            Some(old) => *old = entry.clone(),
            None => base.push(entry.clone()),
        }
        path.pop();
    }
}

/// An image's section that names a source of its own. The commands of another source
/// would be wrong for it, so nothing is inherited.
fn is_other_source(entry: &Entry, path: &[&str]) -> bool {
    path.len() == 2 && path[0] == "image" && entry.value.get("source").is_some()
}
