//! What is said of a receipt: what it proves, and what not.

use super::verdict::{Against, ReceiptRefused};
use serde_json::{Value, json};
use std::fmt::Write;
use tether_gateway::saved::Says;
use tether_wire::receipt::Proof;
use tether_wire::{MeshId, NodeId, Receipt, Tier};

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

/// What no receipt covers of a response that is held against it.
const NOT_COVERED: [&str; 5] = ["created", "logprobs", "headers", "tenant", "computation"];

/// What was judged, with nothing against it.
pub(super) struct Judged<'a> {
    /// The mesh in which the receipts count.
    pub(super) mesh: MeshId,
    /// Each receipt, with what it was held against. At least one.
    pub(super) answers: Vec<(&'a Proof, Against<'a>)>,
    /// Whether the counts of the response were held against them.
    pub(super) usage: bool,
    /// Whether its `system_fingerprint` could be held against them, where it has one.
    pub(super) fingerprint: bool,
    /// Why they prove nothing all the same.
    pub(super) unproved: Option<&'a ReceiptRefused>,
}

impl Judged<'_> {
    /// Parts of the response that could be held against a receipt and were not.
    fn not_compared(&self) -> Vec<&'static str> {
        let all = |was: fn(&Against<'_>) -> bool| self.answers.iter().all(|(_, it)| was(it));
        let id = |it: &Against<'_>| {
            let says = it.answer.map(|answer| &answer.says);
            it.choice == 0 && says.is_some_and(|says| says.job().is_some())
        };
        [
            ("request", all(|it| it.request.is_some())),
            ("answer", all(|it| it.answer.is_some())),
            ("usage", self.usage),
            ("id", self.answers.iter().any(|(_, it)| id(it))),
            ("system_fingerprint", self.fingerprint),
        ]
        .into_iter()
        .filter_map(|(name, was)| (!was).then_some(name))
        .collect()
    }

    /// As JSON: of one answer in one object, of several with one for each.
    pub(super) fn json(&self) -> Value {
        let mut said = json!({
            "valid": self.unproved.is_none(),
            "mesh": self.mesh,
            "mesh_given": self.unproved.is_none(),
            "usage": compared(self.usage),
            "not_compared": self.not_compared(),
            "not_covered": NOT_COVERED,
        });
        let answers = self.answers.iter().map(|(proof, against)| {
            json!({
                "choice": against.choice,
                "worker": proof.receipt.signer(),
                "tier": proof.tier,
                "request": compared(against.request.is_some()),
                "answer": compared(against.answer.is_some()),
                "receipt": json(&proof.receipt),
            })
        });
        let mut answers: Vec<Value> = answers.collect();
        if let Some(fields) = said.as_object_mut() {
            if let [Value::Object(one)] = answers.as_mut_slice() {
                fields.append(one);
            } else {
                fields.insert("answers".to_owned(), answers.into());
            }
            if let Some(refused) = self.unproved {
                fields.insert("code".to_owned(), refused.code().into());
                fields.insert("why".to_owned(), refused.to_string().into());
            }
        }
        said
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mesh_was_given = self.unproved.is_none();
        let mut said = String::from(match (self.answers.len(), mesh_was_given) {
            (1, true) => "The receipt is genuine.\n",
            (1, false) => "The receipt is genuine if this mesh is yours.\n",
            (_, true) => "All receipts are genuine.\n",
            (_, false) => "All receipts are genuine if this mesh is yours.\n",
        });
        for (proof, against) in &self.answers {
            said += "\n";
            if self.answers.len() > 1 {
                let _ = writeln!(said, "Answer {}", against.choice);
            }
            said += &one(proof, against, mesh_was_given);
        }
        let not_compared = self.not_compared();
        if !not_compared.is_empty() {
            let _ = writeln!(said, "\nNot compared: {}.", not_compared.join(", "));
        }
        said += "\n\
            A receipt covers the request, the text and the calls, the counts, the end, the seed, the\n\
            model and who signed. It does not cover `created`, `logprobs`, headers, who asked, nor what\n\
            anybody added.\n\
            \n\
            Whoever holds the worker's key vouched for this. It is no proof that the model was run: a\n\
            worker can sign what it did not compute. Anyone can compute the answer again from request,\n\
            model, seed and numerics class. The times are the worker's word, and whether its key was\n\
            revoked since is not in a receipt.\n";
        said
    }
}

fn compared(was: bool) -> &'static str {
    if was { "matches" } else { "not-compared" }
}

/// One receipt, and what it was held against.
fn one(proof: &Proof, against: &Against<'_>, mesh_was_given: bool) -> String {
    let mut said = String::new();
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
    let says = against.answer.map(|answer| &answer.says);
    if let Some(from) = says.and_then(|says| says.degraded_from.as_deref()) {
        line(
            "",
            &format!("of {from}, in whose place this model answered, as the response says"),
        );
    }
    if let Some(limit) = says.and_then(Says::limit) {
        line(
            "",
            &format!("with at most {limit} tokens, which the response says a policy set"),
        );
    }
    line(
        "answered",
        if against.answer.is_some() {
            "this answer, by what the response says of it too"
        } else {
            "not compared: give --answer"
        },
    );
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
