use super::*;

#[test]
fn pauses_double_up_to_the_longest() {
    assert_eq!(longer(RETRY_MIN), 2 * RETRY_MIN);
    assert_eq!(longer(RETRY_MAX), RETRY_MAX);
}
