use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;
use Class::{Background, OnDemand, Profile, ReadAhead};

impl Gate {
    /// Places taken, and waiters.
    fn counts(&self) -> (usize, usize) {
        let queue = self.0.queue.lock();
        (queue.taken, queue.waiting.len())
    }
}

/// One who wants a place, polled by hand.
struct Guest {
    urgency: Arc<Urgency>,
    entering: Option<Pin<Box<dyn Future<Output = Place>>>>,
    place: Option<Place>,
}

impl Guest {
    fn arrive(gate: &Gate, class: Class) -> Guest {
        let urgency = Arc::new(Urgency::new(class));
        let (gate, wanted) = (gate.clone(), Arc::clone(&urgency));
        let mut guest = Guest {
            urgency,
            entering: Some(Box::pin(async move { gate.enter(&wanted).await })),
            place: None,
        };
        guest.is_in();
        guest
    }

    fn is_in(&mut self) -> bool {
        if let Some(place) = self.entering.as_mut().and_then(|entering| entering.now_or_never()) {
            (self.entering, self.place) = (None, Some(place));
        }
        self.place.is_some()
    }

    fn raise(&mut self, class: Class) {
        self.urgency.raise(class);
        self.is_in();
    }
}

/// Those who enter, in order, when whoever is in leaves.
fn order_of_entry(holder: Guest, guests: &mut Vec<(&'static str, Guest)>) -> Vec<&'static str> {
    drop(holder);
    let mut order = Vec::new();
    while !guests.is_empty() {
        let inside: Vec<usize> = (0..guests.len()).filter(|&i| guests[i].1.is_in()).collect();
        assert_eq!(inside.len(), 1, "one place, one guest");
        let (name, _leaves) = guests.remove(inside[0]);
        order.push(name);
    }
    order
}

#[test]
fn the_most_urgent_enters_first_and_within_a_class_the_first_to_come() {
    let gate = Gate::new([1; 4]);
    let holder = Guest::arrive(&gate, Background);
    let arrivals = [
        ("b1", Background),
        ("r1", ReadAhead),
        ("d1", OnDemand),
        ("b2", Background),
        ("p1", Profile),
        ("d2", OnDemand),
        ("r2", ReadAhead),
    ];
    let mut guests = arrivals.map(|(name, class)| (name, Guest::arrive(&gate, class))).into();
    assert_eq!(order_of_entry(holder, &mut guests), ["d1", "d2", "r1", "r2", "p1", "b1", "b2"]);
    assert_eq!(gate.counts(), (0, 0));
}

#[test]
fn who_rises_joins_the_end_of_the_more_urgent_queue() {
    let gate = Gate::new([1; 4]);
    let holder = Guest::arrive(&gate, OnDemand);
    let arrivals = [("b1", Background), ("b2", Background), ("r", ReadAhead), ("d", OnDemand)];
    let mut guests: Vec<_> = arrivals.map(|(name, class)| (name, Guest::arrive(&gate, class))).into();
    guests[1].1.raise(ReadAhead);
    guests[0].1.raise(OnDemand);
    guests[3].1.raise(Background);
    let late = Guest::arrive(&gate, OnDemand);
    guests.push(("late", late));
    assert_eq!(order_of_entry(holder, &mut guests), ["d", "b1", "late", "r", "b2"]);
}

#[test]
fn places_are_kept_free_for_the_more_urgent() {
    let gate = Gate::new([4, 3, 2, 1]);
    let arrive = |class| {
        let mut guest = Guest::arrive(&gate, class);
        (guest.is_in(), guest)
    };
    let (first, (second, mut waiting)) = (arrive(Background), arrive(Background));
    assert!(first.0 && !second);
    let inside = [arrive(ReadAhead), arrive(ReadAhead)];
    assert!(inside.iter().all(|(entered, _)| *entered));
    let (entered, mut ahead) = arrive(ReadAhead);
    assert!(!entered, "the fourth place is for who asks now");
    waiting.raise(OnDemand);
    assert!(waiting.is_in(), "which one who rises may become at once");
    drop(inside);
    assert!(ahead.is_in());
    drop((first, waiting, ahead));
    assert_eq!(gate.counts(), (0, 0));
}

#[test]
fn who_goes_away_before_or_after_its_turn_takes_no_place_along() {
    let gate = Gate::new([1; 4]);
    let holder = Guest::arrive(&gate, OnDemand);
    let (first, second) = (Guest::arrive(&gate, OnDemand), Guest::arrive(&gate, OnDemand));
    let mut third = Guest::arrive(&gate, Background);
    drop(first);
    assert_eq!(gate.counts(), (1, 2));
    drop(holder);
    // It is the second's turn, and it goes before it is told.
    assert_eq!(gate.counts(), (1, 1));
    drop(second);
    assert!(third.is_in());
    drop(third);
    assert_eq!(gate.counts(), (0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(Class),
    Raise(prop::sample::Index, Class),
    Poll(prop::sample::Index),
    Leave(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let class = prop::sample::select(vec![OnDemand, ReadAhead, Profile, Background]);
    let step = prop_oneof![
        3 => class.clone().prop_map(Step::Arrive),
        1 => (any::<prop::sample::Index>(), class).prop_map(|(who, class)| Step::Raise(who, class)),
        1 => any::<prop::sample::Index>().prop_map(Step::Poll),
        3 => any::<prop::sample::Index>().prop_map(Step::Leave),
    ];
    prop::collection::vec(step, 0..120)
}

/// The rule, written down plainly: guests in the order in which they count as having come.
#[derive(Default)]
struct Model {
    guests: Vec<(u32, Class, bool)>,
}

impl Model {
    fn settle(&mut self, limits: [usize; Class::COUNT]) {
        loop {
            let taken = self.guests.iter().filter(|guest| guest.2).count();
            let next = self.guests.iter_mut().filter(|guest| !guest.2).min_by_key(|guest| guest.1);
            match next {
                Some(next) if taken < limits[next.1 as usize] => next.2 = true,
                _ => return,
            }
        }
    }
}

proptest! {
    #[test]
    fn after_any_steps_exactly_the_right_guests_are_in(steps in steps(), limits in prop::sample::select(
        vec![[1, 1, 1, 1], [2, 1, 1, 1], [3, 3, 3, 3], [4, 3, 2, 1]],
    )) {
        let gate = Gate::new(limits);
        let mut model = Model::default();
        let mut guests: Vec<(u32, Guest)> = Vec::new();
        for (name, step) in (0..).zip(steps) {
            match step {
                Step::Arrive(class) => {
                    guests.push((name, Guest::arrive(&gate, class)));
                    model.guests.push((name, class, false));
                }
                Step::Raise(who, class) if !guests.is_empty() => {
                    let (name, guest) = who.get_mut(&mut guests);
                    guest.raise(class);
                    let at = model.guests.iter().position(|guest| guest.0 == *name).unwrap();
                    if class < model.guests[at].1 && !model.guests[at].2 {
                        let (name, _, _) = model.guests.remove(at);
                        model.guests.push((name, class, false));
                    }
                }
                // Who has entered need not know it: nothing may depend on that.
                Step::Poll(who) if !guests.is_empty() => {
                    who.get_mut(&mut guests).1.is_in();
                }
                Step::Leave(who) if !guests.is_empty() => {
                    let (name, _guest) = guests.remove(who.index(guests.len()));
                    model.guests.retain(|guest| guest.0 != name);
                }
                Step::Raise(..) | Step::Poll(_) | Step::Leave(_) => {}
            }
            model.settle(limits);
            let taken = model.guests.iter().filter(|guest| guest.2).count();
            prop_assert_eq!(gate.counts(), (taken, model.guests.len() - taken));
        }
        for (name, guest) in &mut guests {
            let entered = model.guests.iter().find(|guest| guest.0 == *name).unwrap().2;
            prop_assert_eq!(guest.is_in(), entered);
        }
        drop(guests);
        prop_assert_eq!(gate.counts(), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_thousand_who_go_away_at_random_lose_no_place() {
    const LIMITS: [usize; Class::COUNT] = [4, 3, 2, 1];
    const GONE: usize = 100_000;
    let (gate, inside, gone) = (Gate::new(LIMITS), AtomicUsize::new(0), AtomicUsize::new(0));
    let shared = Arc::new((gate, inside, gone));
    let guests: Vec<_> = (1..=16_u64)
        .map(|seed| {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let (gate, inside, gone) = &*shared;
                let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                while gone.load(SeqCst) < GONE {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let class = |bits: u64| [OnDemand, ReadAhead, Profile, Background][(bits % 4) as usize];
                    let urgency = Urgency::new(class(state >> 8));
                    let mut entering = Box::pin(gate.enter(&urgency));
                    let mut entered = None;
                    for patience in 0..(state >> 16) % 6 {
                        if let Poll::Ready(place) = futures::poll!(entering.as_mut()) {
                            entered = Some(place);
                            break;
                        }
                        if patience == 2 {
                            urgency.raise(class(state >> 24));
                        }
                        tokio::task::yield_now().await;
                    }
                    match entered {
                        Some(_place) => {
                            assert!(inside.fetch_add(1, SeqCst) < LIMITS[0]);
                            tokio::task::yield_now().await;
                            inside.fetch_sub(1, SeqCst);
                        }
                        None => {
                            gone.fetch_add(1, SeqCst);
                        }
                    }
                }
            })
        })
        .collect();
    for guest in guests {
        guest.await.unwrap();
    }
    let (gate, ..) = &*shared;
    assert_eq!(gate.counts(), (0, 0));
    let mut all: Vec<_> = (0..LIMITS[0]).map(|_| Guest::arrive(gate, OnDemand)).collect();
    assert!(all.iter_mut().all(Guest::is_in));
}
