//! Lives of workers, recorded: real keys, grants and signatures.

use super::Ids;
use crate::hostile;
use anyhow::Context;
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use std::sync::Arc;
use tether_net::testing::{self, LocalMesh, now_ms};
use tether_wire::beat::{BEAT_INTERVAL_MS, MAX_SKEW_MS, NodeState};
use tether_wire::spread::RelayedBeat;
use tether_wire::{Beat, Card, Digest, MeshId, NodeKey, Role, Signed};

/// Beats of a life that end it.
const FRESH: u64 = 3;

/// A worker.
#[derive(Clone)]
struct Voice {
    key: NodeKey,
    grant: Vec<u8>,
}

/// Everything that was recorded long ago, shuffled.
pub(super) struct Recording {
    voices: Arc<Vec<Voice>>,
    old: Vec<RelayedBeat>,
}

/// One more life of all of them, which has just ended.
pub(super) struct Life {
    /// The first beat of each, and in the same order the card that it names.
    pub(super) firsts: Vec<RelayedBeat>,
    pub(super) cards: Vec<Vec<u8>>,
    /// All beats of each but the goodbye, shuffled.
    pub(super) beats: Vec<RelayedBeat>,
    pub(super) goodbyes: Vec<RelayedBeat>,
    /// When the freshest was made.
    pub(super) until_ms: u64,
}

impl Recording {
    /// Seals `workers * beats` beats, spread over the past.
    pub(super) async fn make(mesh: &LocalMesh, workers: u32, beats: u32) -> anyhow::Result<Self> {
        let voices: Vec<Voice> = (0..workers)
            .map(|_| {
                let key = testing::key();
                let grant = mesh.grant(key.id(), Role::Worker, |_| ());
                Voice { key, grant }
            })
            .collect();
        let (voices, id, end_ms) = (Arc::new(voices), mesh.mesh.id, now_ms());
        let parts = std::thread::available_parallelism().map_or(1, usize::from);
        let each = voices.len().div_ceil(parts);
        let mut tasks = Vec::new();
        for part in 0..parts {
            let voices = voices.clone();
            tasks.push(tokio::task::spawn_blocking(move || {
                let mut sealed = Vec::new();
                for voice in voices.iter().skip(part * each).take(each) {
                    let epoch = end_ms - u64::from(beats) * BEAT_INTERVAL_MS;
                    for n in 1..=u64::from(beats) {
                        let issued_ms = epoch + n * BEAT_INTERVAL_MS;
                        let card = Digest([1; 32]);
                        let state = NodeState::Serving;
                        sealed.push(voice.beat(&id, epoch, n, issued_ms, card, state)?);
                    }
                }
                anyhow::Ok(sealed)
            }));
        }
        let mut old = Vec::new();
        for task in tasks {
            old.extend(task.await??);
        }
        old.shuffle(&mut rand::rng());
        Ok(Self { voices, old })
    }

    /// All of them live again until now: a card, some beats, and goodbyes for later.
    pub(super) async fn live(&self, mesh: &LocalMesh, now_ms: u64) -> anyhow::Result<Life> {
        let (voices, id) = (self.voices.clone(), mesh.mesh.id);
        tokio::task::spawn_blocking(move || {
            let mut life = Life {
                firsts: Vec::new(),
                cards: Vec::new(),
                beats: Vec::new(),
                goodbyes: Vec::new(),
                until_ms: now_ms,
            };
            for voice in voices.iter() {
                let card = voice.card(&id, now_ms)?;
                let digest = Digest::of(card.as_bytes());
                life.cards.push(card.as_bytes().to_vec());
                for seq in 1..=FRESH {
                    let beat = voice.beat(&id, now_ms, seq, now_ms, digest, NodeState::Serving)?;
                    if seq == 1 {
                        life.firsts.push(beat.clone());
                    }
                    life.beats.push(beat);
                }
                let state = NodeState::Leaving;
                let goodbye = voice.beat(&id, now_ms, FRESH + 1, now_ms, digest, state)?;
                life.goodbyes.push(goodbye);
            }
            life.beats.shuffle(&mut rand::rng());
            Ok(life)
        })
        .await?
    }

    pub(super) fn workers(&self) -> usize {
        self.voices.len()
    }

    pub(super) fn len(&self) -> usize {
        self.old.len()
    }

    pub(super) fn old(&self) -> &[RelayedBeat] {
        &self.old
    }

    /// Ids of all workers, as logs write them.
    pub(super) fn ids(&self) -> Ids {
        self.voices
            .iter()
            .map(|voice| voice.key.id().to_hex())
            .collect()
    }
}

impl Voice {
    fn card(&self, mesh: &MeshId, now_ms: u64) -> anyhow::Result<Signed<Card>> {
        let card = Card {
            role: Role::Worker,
            epoch: now_ms,
            revision: 1,
            issued_ms: now_ms,
            region: testing::region(),
            grant: Some(self.grant.clone()),
            agent: "drill".to_owned(),
            minor: 0,
            addresses: Vec::new(),
            worker: Some(hostile::worker_card()),
        };
        Signed::seal(&self.key, mesh, &card).context("a card")
    }

    fn beat(
        &self,
        mesh: &MeshId,
        epoch: u64,
        seq: u64,
        issued_ms: u64,
        card: Digest,
        state: NodeState,
    ) -> anyhow::Result<RelayedBeat> {
        let beat = Beat {
            epoch,
            seq,
            nonce: rand::random(),
            issued_ms,
            state,
            card,
            queue_depth: 0,
            in_flight: 0,
            tokens_per_s: 0.0,
            first_token_ms: 0,
            vitals: None,
        };
        let sealed = Signed::seal(&self.key, mesh, &beat).context("a beat")?;
        Ok(RelayedBeat {
            epoch,
            seq,
            ahead_ms: 0,
            beat: sealed.as_bytes().to_vec(),
        })
    }
}

/// The same beat as a liar passes it on: made to look younger than it is, as far as is believed.
pub(super) fn younger(beat: &RelayedBeat) -> RelayedBeat {
    let most = i32::try_from(MAX_SKEW_MS).unwrap_or(i32::MAX);
    RelayedBeat {
        ahead_ms: -rand::rng().random_range(0..=most),
        ..beat.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_recording_is_rightly_signed_and_a_life_ends_with_goodbyes() {
        let mesh = LocalMesh::new(tether_wire::grant::Access::Invite);
        let recording = Recording::make(&mesh, 3, 5).await.expect("sealed");
        assert_eq!((recording.workers(), recording.len()), (3, 15));
        let life = recording.live(&mesh, now_ms()).await.expect("sealed");
        assert_eq!((life.beats.len(), life.goodbyes.len()), (9, 3));
        assert_eq!((life.firsts.len(), life.cards.len()), (3, 3));
        let ids = recording.ids();
        let newest_old = recording.old().iter().map(|it| it.epoch).max();
        for relayed in recording
            .old()
            .iter()
            .chain(&life.beats)
            .chain(&life.goodbyes)
        {
            let beat = Signed::<Beat>::from_bytes(relayed.beat.clone());
            let beat = beat.verify(&mesh.mesh.id).expect("rightly signed");
            assert!(ids.contains(&beat.signer().to_hex()));
            assert_eq!((beat.epoch, beat.seq), (relayed.epoch, relayed.seq));
        }
        assert!(life.beats.iter().all(|it| Some(it.epoch) > newest_old));
        let young = younger(&life.beats[0]);
        assert!((-5_000..=0).contains(&young.ahead_ms));
        assert_eq!(young.beat, life.beats[0].beat);
    }
}
