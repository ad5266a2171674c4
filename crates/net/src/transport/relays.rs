//! The mesh's relays, as a node uses them: the way to a peer while there is no direct one.
//!
//! A node is reached through relays of its own configuration alone. A record that names another one
//! is read without it: else anybody who is found on a topic could have this node open connections
//! to wherever it likes. [T-REC-4]

use iroh::{RelayConfig, RelayMap, RelayMode, RelayUrl};

/// Most relays of a node.
pub const MAX_RELAYS: usize = 8;
/// Most bytes of a relay's URL: it is in the record, beside addresses.
const MAX_URL_BYTES: usize = 200;

/// The relays that a node knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Relays {
    urls: Vec<RelayUrl>,
    token: Option<String>,
}

/// Whether a text is the URL of a relay, in words where it is not.
///
/// # Errors
/// What is wrong with it.
pub fn check_relay_url(url: &str) -> Result<(), String> {
    parse(url).map(|_| ())
}

fn parse(url: &str) -> Result<RelayUrl, String> {
    let wrong = |why: &str| format!("`{url}`: {why}");
    if url.len() > MAX_URL_BYTES {
        return Err(wrong(&format!("it is longer than {MAX_URL_BYTES} bytes")));
    }
    let parsed: RelayUrl = url.parse().map_err(|error| wrong(&format!("{error}")))?;
    if !["http", "https"].contains(&parsed.scheme()) || !parsed.has_host() {
        return Err(wrong(
            "give http://HOST:PORT/, or https:// behind a TLS proxy",
        ));
    }
    if parsed.path() != "/" || parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(wrong("give it without a path"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(wrong("give it without a user: nodes show their grants"));
    }
    Ok(parsed)
}

impl Relays {
    /// Reads the URLs; `grant` is what the relays are shown.
    pub(crate) fn new(urls: &[String], grant: Option<&[u8]>) -> Result<Self, String> {
        if urls.len() > MAX_RELAYS {
            return Err(format!("more than {MAX_RELAYS} relays are named"));
        }
        let urls = urls.iter().map(|url| parse(url));
        Ok(Self {
            urls: urls
                .collect::<Result<_, _>>()
                .map_err(|why| format!("relay {why}"))?,
            token: grant.map(hex::encode),
        })
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.urls.is_empty()
    }

    /// The transport's form. Address discovery of the transport's own makers wants a certificate
    /// that a relay of ours has not; [`super::observed`] takes its place.
    pub(super) fn mode(&self) -> RelayMode {
        if self.is_empty() {
            return RelayMode::Disabled;
        }
        let configs = self.urls.iter().map(|url| {
            let config = RelayConfig::new(url.clone(), None);
            match &self.token {
                Some(token) => config.with_auth_token(token.clone()),
                None => config,
            }
        });
        RelayMode::Custom(RelayMap::from_iter(configs))
    }

    /// The relay that a record names, if it is one of ours.
    pub(super) fn known(&self, named: Option<&str>) -> Option<RelayUrl> {
        let named: RelayUrl = named?.parse().ok()?;
        self.urls.iter().find(|own| **own == named).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_a_plain_url_of_a_host() {
        for good in [
            "http://192.0.2.1:3340/",
            "https://relay.example",
            "http://[2001:db8::1]:80",
        ] {
            check_relay_url(good).expect(good);
        }
        let long = format!("http://{}/", "a".repeat(MAX_URL_BYTES));
        for wrong in [
            "",
            "relay",
            "ftp://relay.example",
            "http://h/path",
            "http://h/?q",
            "http://u:p@h/",
            &long,
        ] {
            check_relay_url(wrong).expect_err(wrong);
        }
        let many = vec!["http://192.0.2.1/".to_owned(); MAX_RELAYS + 1];
        assert!(Relays::new(&many, None).is_err());
    }

    /// [T-REC-4]
    #[test]
    fn a_record_cannot_send_a_node_to_a_relay_that_is_not_the_meshs() {
        let urls = ["http://192.0.2.1:3340".to_owned()];
        let relays = Relays::new(&urls, None).expect("a URL");
        assert!(relays.known(Some("http://192.0.2.1:3340/")).is_some());
        for other in [
            "http://192.0.2.1:3341/",
            "http://10.0.0.1/",
            "https://192.0.2.1:3340/",
            "x",
        ] {
            assert_eq!(relays.known(Some(other)), None, "{other}");
        }
        assert_eq!(relays.known(None), None);
    }
}
