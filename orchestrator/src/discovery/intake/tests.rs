use super::*;
use crate::testing::{NOW, beat, card, id, key, mesh};
use tether_wire::grant::{Access, Mesh};
use tether_wire::{Beat, Membership, MeshId, NodeKey, Signed};

fn item(beat: &[u8], card: Option<&[u8]>) -> Vec<u8> {
    codec::encode(&Push {
        beat: beat.to_vec(),
        card: card.map(<[u8]>::to_vec),
    })
}

fn sealed(key: &NodeKey, mesh: &MeshId, beat: &Beat) -> Vec<u8> {
    let signed = Signed::seal(key, mesh, beat).expect("inside limits");
    signed.as_bytes().to_vec()
}

fn verdict(item: &[u8]) -> Result<(Event, Option<Rejected>), Rejected> {
    let access = Access::Open;
    let members = Arc::new(Membership::new(Mesh {
        id: mesh(),
        recovery: None,
        access,
    }));
    judge(item, id(1), &Signatures { members }, NOW)
}

#[test]
fn a_nodes_own_beat_passes_and_its_card_with_it() {
    let beat = sealed(&key(1), &mesh(), &beat(1));
    let card = Signed::seal(&key(1), &mesh(), &card()).expect("inside limits");
    let (event, wrong) = verdict(&item(&beat, Some(card.as_bytes()))).expect("good");
    assert!(matches!(event, Event::Beat { card: Some(_), .. }));
    assert_eq!(wrong, None);
}

#[test]
fn a_bad_card_does_not_spoil_the_beat_beside_it() {
    let beat = sealed(&key(1), &mesh(), &beat(1));
    let (event, wrong) = verdict(&item(&beat, Some(b"no card"))).expect("a good beat");
    assert!(matches!(event, Event::Beat { card: None, .. }));
    assert_eq!(wrong, Some(Rejected::Forged));
}

#[test]
fn everything_else_is_refused_by_its_own_reason() {
    let refused = |item: &[u8]| verdict(item).expect_err("refused");
    let good = sealed(&key(1), &mesh(), &beat(1));
    let mut forged = good.clone();
    *forged.last_mut().expect("bytes") ^= 1;
    assert_eq!(refused(&item(&forged, None)), Rejected::Forged);
    let elsewhere = sealed(&key(1), &MeshId([9; 32]), &beat(1));
    assert_eq!(refused(&item(&elsewhere, None)), Rejected::Forged);
    assert_eq!(refused(&item(b"", None)), Rejected::Forged);
    let others = sealed(&key(2), &mesh(), &beat(1));
    assert_eq!(refused(&item(&others, None)), Rejected::WrongNode);
    assert_eq!(refused(b"not cbor"), Rejected::Malformed);
    let long = vec![0; 2_048];
    assert_eq!(refused(&item(&long, None)), Rejected::Oversized);
    let beyond = vec![0; MAX_PUSH_BYTES + 1];
    assert_eq!(refused(&beyond), Rejected::Oversized);
}
