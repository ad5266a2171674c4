//! What is left to do when a configuration is written. Pure.

use std::path::Path;
use tether_wire::{NodeId, Region};

/// The command that starts the worker; with the file of a token, where it has yet to join.
pub(super) fn command(data_dir: &Path, token: Option<&Path>) -> String {
    let dir = quoted(data_dir);
    match token {
        Some(file) => format!(
            "tether worker --join-file {} --data-dir {dir}",
            quoted(file)
        ),
        None => format!("tether worker --data-dir {dir}"),
    }
}

/// What a worker without a token needs of its operator.
pub(super) fn grant(id: NodeId, region: &Region, grant: &Path) -> String {
    format!(
        "a grant for its key {id}, as {}: the operator makes it by `tether grant issue --subject {id} --role worker --region {region} …`",
        grant.display()
    )
}

/// What one without a model is told.
pub(super) fn model(config: &Path) -> String {
    format!(
        "a model: it starts, and serves nothing until [[worker.models]] in {} names one, and `trusted_publishers` its publisher",
        config.display()
    )
}

/// As a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |it: char| it.is_alphanumeric() || "/._-+,:@%".contains(it);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_given_to_a_shell_as_it_is() {
        let plain = command(Path::new("./w"), None);
        assert_eq!(plain, "tether worker --data-dir ./w");
        let odd = command(Path::new("my worker's"), Some(Path::new("a;b")));
        assert_eq!(
            odd,
            r"tether worker --join-file 'a;b' --data-dir 'my worker'\''s'"
        );
    }
}
