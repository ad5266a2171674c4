//! What is said of a receipt: what it proves, and what not.

use super::verdict::{Against, ReceiptRefused};
use serde_json::{Value, json};
use std::fmt::Write;
use tether_wire::receipt::Proof;
use tether_wire::{NodeId, Receipt, Tier};

/// A receipt as JSON.
pub(super) fn json(receipt: &Receipt) -> Value {
    let mut shown = serde_json::to_value(receipt).unwrap_or_default();
    // Bytes are of no use to a reader of JSON; the grant was judged, or was not.
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("grant");
        fields.insert("model".to_owned(), receipt.model.to_string().into());
    }
    shown
}

/// The verdict as JSON; `unproved` is why it proves nothing all the same.
pub(super) fn proof_json(
    proof: &Proof,
    against: &Against<'_>,
    unproved: Option<&ReceiptRefused>,
) -> Value {
    let mut said = json!({
        "valid": unproved.is_none(),
        "worker": proof.receipt.signer(),
        "mesh": against.mesh.id,
        "mesh_given": unproved.is_none(),
        "tier": proof.tier,
        "request": compared(against.request.is_some()),
        "answer": compared(against.answer.is_some()),
        "receipt": json(&proof.receipt),
    });
    if let (Some(refused), Some(fields)) = (unproved, said.as_object_mut()) {
        fields.insert("code".to_owned(), refused.code().into());
        fields.insert("why".to_owned(), refused.to_string().into());
    }
    said
}

fn compared(was: bool) -> &'static str {
    if was { "matches" } else { "not-compared" }
}

/// The verdict for people.
pub(super) fn proof(proof: &Proof, against: &Against<'_>, mesh_was_given: bool) -> String {
    let mut said = String::from(if mesh_was_given {
        "The receipt is genuine.\n\n"
    } else {
        "The receipt is genuine if this mesh is yours.\n\n"
    });
    let standing = match proof.tier {
        Some(Tier::Trusted) => "a worker of the mesh, trusted by its operator",
        Some(Tier::Untrusted) => "a worker of the mesh, not vetted by its operator",
        None => "a key without a grant: in an open mesh anybody can be a worker",
    };
    let mut line = |name: &str, text: &dyn std::fmt::Display| {
        let _ = writeln!(said, "  {name:<10} {text}");
    };
    line("signed by", &proof.receipt.signer());
    line("", &standing);
    line("mesh", &against.mesh.id);
    if !mesh_was_given {
        line(
            "",
            &"as the response says, and anybody can make a mesh: give yours by --mesh",
        );
    }
    said += &facts(&proof.receipt);
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(said, "  {name:<10} {text}");
    };
    line(
        "asked",
        if against.request.is_some() {
            "this request"
        } else {
            "not compared: give --request"
        },
    );
    line(
        "answered",
        if against.answer.is_some() {
            "this answer"
        } else {
            "not compared: give --answer"
        },
    );
    said += "\n\
        Whoever holds the worker's key vouched for this. It is no proof that the model was run: a\n\
        worker can sign what it did not compute. Anyone can compute the answer again from request,\n\
        model, seed and numerics class. The times are the worker's word, and whether its key was\n\
        revoked since is not in a receipt.\n";
    said
}

/// What a receipt says, unverified.
pub(super) fn shown(signer: &NodeId, receipt: &Receipt) -> String {
    let mut said = String::from("Not verified: `tether receipt verify` does that.\n\n");
    let _ = writeln!(said, "  {:<10} {signer}", "claimed by");
    said + &facts(receipt)
}

fn facts(receipt: &Receipt) -> String {
    let mut said = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(said, "  {name:<10} {text}");
    };
    line("model", receipt.model.to_string());
    line("", format!("digest {}", receipt.digest));
    for adapter in &receipt.adapters {
        line("", format!("adapter {adapter}"));
    }
    line("job", receipt.correlation.to_string());
    line(
        "tokens",
        format!(
            "{} of the prompt, {} of the answer, which ended by `{}`",
            receipt.prompt_tokens,
            receipt.completion_tokens,
            receipt.finish.as_str()
        ),
    );
    if receipt.continued_from > 0 {
        let from = receipt.continued_from;
        line(
            "",
            format!("continued: the first {from} had been given before, and are vouched for"),
        );
    }
    line("seed", receipt.seed.cast_signed().to_string());
    let took_ms = receipt.ended_ms.saturating_sub(receipt.began_ms);
    let first_ms = receipt
        .first_token_ms
        .map(|at| at.saturating_sub(receipt.began_ms));
    let first = first_ms.map_or(String::new(), |ms| {
        format!(", the first piece after {ms} ms")
    });
    line(
        "began",
        format!("{} ms since 1970, by the worker's clock", receipt.began_ms),
    );
    line("took", format!("{took_ms} ms{first}"));
    line(
        "engine",
        format!("{}, class {}", receipt.engine, receipt.numerics_class),
    );
    said
}
