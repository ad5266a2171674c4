use super::*;
use crate::engine::Refused;
use crate::sandbox::Protection;
use futures_util::FutureExt;

fn ready(pid: u32) -> Ready {
    Ready {
        context_tokens: 2_048,
        engine: "fake".to_owned(),
        numerics_class: "fake/1".to_owned(),
        sequences: 2,
        max_token_bytes: Some(8),
        load_ms: u64::from(pid),
        pids: vec![pid],
        shields: vec![Shield {
            protection: Protection::Files,
            enforced: true,
            by: Vec::new(),
            missing: Vec::new(),
        }],
        fallen: Vec::new(),
    }
}

fn down(reason: &str) -> EngineState {
    EngineState::Down {
        code: "engine-crash",
        reason: reason.to_owned(),
    }
}

fn refused() -> EngineState {
    EngineState::Refused(Refused {
        code: "corrupt-file",
        reason: "changed".to_owned(),
        passing: false,
    })
}

/// A board of three whose processes have all begun.
fn three() -> (Arc<Board>, [Post; 3]) {
    let board = Board::new(3);
    let posts = [0, 1, 2].map(|process| board.post(process));
    board.change(|lanes| lanes.iter_mut().for_each(|it| it.has_begun = true));
    (board, posts)
}

fn now(board: &Board) -> EngineState {
    board.watch().borrow().clone()
}

fn sequences(board: &Board) -> u32 {
    match now(board) {
        EngineState::Ready(ready) => ready.sequences,
        _ => 0,
    }
}

#[test]
fn the_first_starts_alone_and_the_others_when_it_has_shown_that_the_model_loads() {
    let board = Board::new(2);
    let [first, second] = [0, 1].map(|process| board.post(process));
    assert!(first.turn().now_or_never().is_some());
    assert!(second.turn().now_or_never().is_none());
    first.set(down("it does not load"));
    assert_eq!(
        now(&board),
        down("it does not load"),
        "nobody waits for one that has no turn"
    );
    first.set(EngineState::Starting);
    first.ready(ready(1)).expect("alone");
    assert!(second.turn().now_or_never().is_some());
    first.set(down("it fell"));
    assert_eq!(
        now(&board),
        EngineState::Starting,
        "the second is on its way"
    );
}

#[test]
fn together_they_are_ready_while_one_is_and_answer_as_many_as_are() {
    let (board, posts) = three();
    assert_eq!(sequences(&board), 0);
    for (n, post) in posts.iter().enumerate() {
        post.ready(ready(post.process())).expect("alike");
        assert_eq!(sequences(&board) as usize, 2 * (n + 1));
    }
    posts[1].set(down("killed"));
    assert!(posts[1].is_hidden() && posts[1].has_hope());
    assert_eq!(sequences(&board), 4);
    let EngineState::Ready(all) = now(&board) else {
        panic!("two are ready")
    };
    assert_eq!((all.pids, all.load_ms), (vec![0, 2], 2));
    posts[0].set(EngineState::Starting);
    posts[2].set(down("killed"));
    assert_eq!(now(&board), EngineState::Starting);
    posts[0].set(down("killed first"));
    assert_eq!(now(&board), down("killed first"));
    posts[0].set(refused());
    assert_eq!(now(&board), down("killed"), "two are started again");
    assert!(!posts[0].is_hidden() && posts[0].has_hope());
    posts[1].set(refused());
    posts[2].set(EngineState::Stopped);
    assert_eq!(now(&board), refused());
    assert!(!posts[0].has_hope());
}

#[test]
fn why_one_fell_is_told_while_others_answer_until_it_answers_again() {
    let (board, posts) = three();
    let fallen = || match now(&board) {
        EngineState::Ready(ready) => ready.fallen,
        other => panic!("{other:?}"),
    };
    posts.iter().for_each(|post| {
        post.ready(ready(post.process())).expect("alike");
    });
    posts[0].set(EngineState::Starting);
    assert_eq!(fallen(), [], "it is not known yet");
    posts[0].set(down("killed"));
    posts[2].set(refused());
    let codes = || -> Vec<_> { fallen().into_iter().map(|it| it.code).collect() };
    assert_eq!(codes(), ["engine-crash", "corrupt-file"]);
    posts[0].set(EngineState::Starting);
    posts[2].set(EngineState::Starting);
    assert_eq!(codes(), ["engine-crash", "corrupt-file"], "being tried");
    posts[0].ready(ready(0)).expect("alike");
    assert_eq!(codes(), ["corrupt-file"]);
    posts[2].ready(ready(2)).expect("alike");
    assert_eq!(fallen(), []);
}

#[test]
fn who_asks_is_given_to_the_one_that_is_ready_and_has_the_least_to_do() {
    let (board, posts) = three();
    let starting = board.take().expect("it will say why it cannot yet");
    assert_eq!(starting.process(), 0);
    drop(starting);
    for post in &posts[..2] {
        post.ready(ready(post.process())).expect("alike");
    }
    let take = || board.take().expect("ready");
    let (a, b, c) = (take(), take(), take());
    assert_eq!([a.process(), b.process(), c.process()], [0, 1, 0]);
    drop((a, c));
    let d = take();
    assert_eq!(d.process(), 0);
    posts[2].ready(ready(2)).expect("alike");
    assert_eq!(take().process(), 2);
    posts[0].set(down("killed"));
    posts[2].set(down("killed"));
    assert_eq!(take().process(), 1, "whatever it has");
    posts[1].set(down("killed, too"));
    let error = board.take().expect_err("none is left");
    assert_eq!(error.code, Code::Unavailable);
    // What a request occupied may be given back later than its process ended.
    drop((b, d));
    for lane in board.lanes().iter() {
        assert_eq!(lane.requests, 0);
    }
}

#[test]
fn one_that_computes_otherwise_is_not_let_in_beside_others() {
    let (board, posts) = three();
    posts[0].ready(ready(0)).expect("alone");
    let other = Ready {
        numerics_class: "fake/2".to_owned(),
        ..ready(1)
    };
    let why = posts[1].ready(other.clone()).expect_err("another class");
    assert!(why.contains("fake/1") && why.contains("fake/2"), "{why}");
    assert_eq!(sequences(&board), 2);
    posts[0].set(down("killed"));
    posts[1].ready(other).expect("nobody answers otherwise now");
    posts[0]
        .ready(ready(0))
        .expect_err("now the other class counts");
}

#[test]
fn what_holds_of_one_only_is_not_said_of_all() {
    let (board, posts) = three();
    posts[0].ready(ready(0)).expect("alone");
    let shields = vec![Shield::none(Protection::Files, "no such kernel")];
    posts[1]
        .ready(Ready {
            shields,
            ..ready(1)
        })
        .expect("alike");
    let EngineState::Ready(all) = now(&board) else {
        panic!("ready")
    };
    assert!(!all.shields[0].enforced);
}

#[test]
fn one_that_nobody_looks_after_any_more_is_stopped() {
    let (board, posts) = three();
    posts[0].set(refused());
    drop(posts);
    assert_eq!(now(&board), refused());
    let (board, posts) = three();
    posts[0].ready(ready(0)).expect("alone");
    drop(posts);
    assert_eq!(now(&board), EngineState::Stopped);
    assert!(board.take().is_err());
}
