//! The models that are remembered.

use super::*;

pub(crate) async fn models_are_remembered_with_the_time_when_they_were_first_seen(
    place: &dyn Place,
) {
    let store = open(place).await;
    let known = |digest, first_seen_ms, last_offered_ms| KnownModel {
        model: "tiny@1.0".parse().expect("valid"),
        digest: Digest([digest; 32]),
        first_seen_ms,
        last_offered_ms,
        offered_by: Some(NodeId([4; 32])),
    };
    let note = async |it| store.note_models(vec![it]).await.expect("works");
    note(known(3, 5, 6)).await;
    note(known(3, 9, 9)).await;
    note(known(3, 9, 7)).await;
    assert_eq!(store.known_models().await, Ok(vec![known(3, 5, 9)]));
    note(known(8, 10, 10)).await;
    let bound_anew = Ok(vec![known(8, 10, 10)]);
    assert_eq!(store.known_models().await, bound_anew);
    let forgotten = vec!["tiny@1.0".parse().expect("valid")];
    store.forget_models(forgotten).await.expect("works");
    assert_eq!(store.known_models().await, Ok(Vec::new()));
}
