//! Which replica should hand a shard to which: decisions by what everybody sees, without a clock or a request.

/// Who holds each shard's lease, as one replica sees it; empty where nobody does.
#[derive(Clone, Debug)]
pub(super) struct Sight<'a> {
    pub(super) me: &'a str,
    pub(super) holders: Vec<String>,
}

impl Sight<'_> {
    /// Whether somebody has so many more shards than this replica that one of them should move here.
    pub(super) fn wants(&self) -> bool {
        let mine = self.shards_of(self.me);
        self.is_settled() && self.holders.iter().any(|holder| self.shards_of(holder) >= mine + 2)
    }

    /// Whether this replica is the one to hand a shard to `other`, which wants one: the one with the most shards is, of several
    /// the first by name.
    pub(super) fn yields_to(&self, other: &str) -> bool {
        let mine = self.shards_of(self.me);
        let first = |holder: &String| {
            (self.shards_of(holder), std::cmp::Reverse(holder.as_str())) <= (mine, std::cmp::Reverse(self.me))
        };
        self.is_settled() && mine >= self.shards_of(other) + 2 && self.holders.iter().all(first)
    }

    /// How many shards a replica has.
    pub(super) fn shards_of(&self, replica: &str) -> usize {
        self.holders.iter().filter(|holder| *holder == replica).count()
    }

    /// Whether nothing is changing hands, which changes the picture anyway.
    fn is_settled(&self) -> bool {
        self.holders.iter().all(|holder| !holder.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight<'a>(me: &'a str, holders: &str) -> Sight<'a> {
        Sight { me, holders: holders.chars().map(|c| c.to_string().replace('-', "")).collect() }
    }

    #[test]
    fn a_replica_wants_a_shard_when_the_move_evens_things_out() {
        for (holders, wants) in
            [("aaaaaaaa", true), ("aaabbbbc", true), ("aaabbbcc", false), ("ccc", false), ("aac", false)]
        {
            assert_eq!(sight("c", holders).wants(), wants, "{holders}");
        }
        assert!(!sight("c", "aaaaaaa-").wants(), "one is free to be taken");
    }

    #[test]
    fn of_those_with_the_most_the_first_hands_one_over() {
        let yields = |me, holders, to| sight(me, holders).yields_to(to);
        assert!(yields("b", "aaabbbb", "c") && !yields("a", "aaabbbb", "c"));
        assert!(yields("a", "aaaabbbb", "c") && !yields("b", "aaaabbbb", "c"));
        assert!(!yields("a", "aaabbbcc", "c"), "it would not be better");
        assert!(!yields("a", "aaaabbb-", "c"));
        assert!(!yields("c", "aaaabbbb", "c"));
    }

    #[test]
    fn any_distribution_becomes_even_in_the_end_and_then_stands() {
        let replicas = ["a", "b", "c", "d", "e"];
        for seed in 0..200_usize {
            let mut holders: Vec<String> = (0..64)
                .map(|shard| replicas[seed * (shard * shard + 7) / 5 % replicas.len()].to_owned())
                .collect();
            let mut moves = 0;
            let sight = |me, holders: &Vec<String>| Sight { me, holders: holders.clone() };
            while let Some(asks) = replicas.iter().copied().find(|me| sight(me, &holders).wants()) {
                let giving: Vec<_> =
                    replicas.iter().filter(|me| sight(me, &holders).yields_to(asks)).collect();
                let [gives] = giving[..] else { panic!("{giving:?} give to {asks}") };
                let moved = holders.iter_mut().find(|holder| *holder == gives).unwrap();
                *moved = asks.to_owned();
                moves += 1;
                assert!(moves <= 160, "{seed}");
            }
            let sizes = replicas.map(|replica| sight(replica, &holders).shards_of(replica));
            assert!(sizes.iter().all(|size| [12, 13].contains(size)), "{sizes:?}");
        }
    }
}
