//! Who is interested in an answer, against a list that is searched from end to end.

use proptest::prelude::*;

use super::super::interests::{Interests, Withdrawn};
use super::*;
use crate::actors::coalescer::tables::TurnIds;
use crate::chat::{OrgId, RequestId, ThreadId};

#[derive(Debug, Clone)]
enum Op {
    Add {
        request: usize,
        turn: Option<usize>,
    },
    Withdraw(usize),
    /// The store has opened a turn, or there is none to open.
    Open(Option<usize>),
    RemoveTurn(Option<usize>),
    Remove(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let turn = || prop::option::of(0_usize..3);
    prop_oneof![
        4 => (0_usize..10, turn()).prop_map(|(request, turn)| Op::Add { request, turn }),
        4 => (0_usize..10).prop_map(Op::Withdraw),
        2 => turn().prop_map(Op::Open),
        1 => turn().prop_map(Op::RemoveTurn),
        1 => (0_usize..10).prop_map(Op::Remove),
    ]
}

fn request(number: usize) -> RequestId {
    RequestId::parse(OrgId::new("o"), &format!("r-{number}")).unwrap()
}

fn turn(number: usize) -> TurnIds {
    let thread = ThreadId::new(format!("t-{number}"));
    TurnIds { thread, user_message: None, answer: MessageId::new(format!("m-{number}")) }
}

struct Member {
    request: usize,
    turn: Option<usize>,
    is_leaving: bool,
}

#[derive(Default)]
struct Pair {
    interests: Interests<usize, ()>,
    members: Vec<Member>,
    open: Vec<Option<usize>>,
    over: bool,
}

impl Pair {
    fn of(&self, turn: Option<usize>) -> usize {
        self.members.iter().filter(|member| member.turn == turn).count()
    }

    fn staying(&self) -> usize {
        self.members.iter().filter(|member| !member.is_leaving).count()
    }

    fn apply(&mut self, op: &Op) {
        match op.clone() {
            Op::Add { request: number, turn: which } => {
                if self.members.iter().all(|member| member.request != number) {
                    let is_new = self.interests.add(request(number), which.map(turn).as_ref(), number);
                    assert_eq!(is_new, self.of(which) == 0);
                    self.members.push(Member { request: number, turn: which, is_leaving: false });
                }
            }
            Op::Withdraw(number) => self.withdraw(number),
            Op::Open(which) => self.open(which),
            Op::RemoveTurn(which) => {
                let (members, group) = self.interests.remove_turn(which.map(|which| turn(which).answer).as_ref());
                assert_eq!((members.len(), group.is_some()), (self.of(which), self.of(which) > 0));
                self.members.retain(|member| member.turn != which);
            }
            Op::Remove(number) => {
                let known = self.members.iter().position(|member| member.request == number);
                // The last member of a turn leaves with its turn, never alone.
                if let Some(known) = known.filter(|known| self.of(self.members[*known].turn) > 1) {
                    assert_eq!(self.interests.remove(&request(number)), Some(number));
                    self.members.remove(known);
                }
            }
        }
        self.open.retain(|open| self.members.iter().any(|member| member.turn == *open));
        assert_eq!((self.interests.len(), self.interests.staying()), (self.members.len(), self.staying()));
        for which in 0..3 {
            let staying = self.members.iter().filter(|member| member.turn == Some(which) && !member.is_leaving).count();
            assert_eq!(self.interests.staying_of(&turn(which).answer), staying);
            assert_eq!(self.interests.turn_of(&turn(which).thread).is_some(), self.of(Some(which)) > 0);
        }
    }

    fn withdraw(&mut self, number: usize) {
        let withdrawn = self.interests.withdraw(&request(number), Status::Cancelled);
        let known = self.members.iter().position(|member| member.request == number);
        let Some(index) = known else { return assert!(matches!(withdrawn, Withdrawn::Unknown)) };
        let Member { turn, is_leaving, .. } = self.members[index];
        if is_leaving {
            return assert!(matches!(withdrawn, Withdrawn::Later));
        }
        if self.staying() == 1 {
            assert!(matches!(withdrawn, Withdrawn::Last));
            self.over = true;
        } else if !self.open.contains(&turn) {
            assert!(matches!(withdrawn, Withdrawn::Later));
            self.members[index].is_leaving = true;
        } else if self.of(turn) == 1 {
            assert!(matches!(withdrawn, Withdrawn::TurnOver(who, _) if who == number));
            self.members.remove(index);
        } else {
            assert!(matches!(withdrawn, Withdrawn::Shared(who) if who == number));
            self.members.remove(index);
        }
    }

    fn open(&mut self, which: Option<usize>) {
        let answer = which.map(|which| turn(which).answer);
        let Some(group) = self.interests.group_mut(answer.as_ref()) else { return };
        group.open = true;
        self.open.push(which);
        let leaving = self.interests.take_leaving(answer.as_ref());
        let expected = self.members.iter_mut().filter(|member| member.turn == which && member.is_leaving);
        let numbers: Vec<_> =
            expected.map(|member| std::mem::replace(member, Member { is_leaving: false, ..*member }).request).collect();
        assert_eq!(leaving.len(), numbers.len());
        for number in numbers {
            self.withdraw(number);
        }
    }
}

proptest! {
    #[test]
    fn interests_come_and_go_without_a_miscount(ops in prop::collection::vec(op(), 1..80)) {
        let mut pair = Pair::default();
        for op in ops {
            pair.apply(&op);
            if pair.over {
                break;
            }
        }
    }
}
