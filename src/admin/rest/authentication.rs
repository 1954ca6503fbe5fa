//! `authentication`: what holds the logins of a user.

use super::Answer;
use super::Call;
use super::HttpState;
use super::Outcome;
use super::Problem;
use crate::net::clock;

/// `DELETE authentication/lockouts/{username}`
pub(super) fn unlock(state: &HttpState, call: &Call) -> Outcome {
    if state.broker.unlock_user(&call.item, clock::now()) {
        Ok(Answer::Nothing)
    } else {
        Err(Problem::not_found(format!("nothing holds the logins of {:?}", call.item)))
    }
}
