//! Shares of traffic as weights of servers.

/// The largest weight that HAProxy takes (configuration manual, "weight").
const LARGEST: f64 = 256.0;

/// The weight of each server of each group, from the group's share in percent and its number of servers.
///
/// HAProxy divides traffic by the servers' weights, so a group's share has to be divided among its
/// own: two servers with 50 % have half the weight of one server with 50 %. Weights are as large as
/// they can be, for the least rounding; a group with a share never rounds down to none.
pub fn server_weights(groups: &[(u8, usize)]) -> Vec<u32> {
    let shares = groups.iter().map(|(percent, servers)| match servers {
        0 => 0.0,
        _ => f64::from(*percent) / *servers as f64,
    });
    let shares: Vec<f64> = shares.collect();
    let largest = shares.iter().copied().fold(0.0, f64::max);
    let weight = |share: f64| if share > 0.0 { (share / largest * LARGEST).round().max(1.0) as u32 } else { 0 };
    shares.into_iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_different_sizes_get_their_shares() {
        for groups in
            [[(10, 2), (90, 2)], [(50, 1), (50, 4)], [(1, 3), (99, 2)], [(100, 2), (0, 2)], [(25, 8), (75, 1)]]
        {
            let weights = server_weights(&groups);
            let total: f64 =
                weights.iter().zip(groups).map(|(weight, (_, servers))| f64::from(*weight) * servers as f64).sum();
            for (weight, (percent, servers)) in weights.iter().zip(groups) {
                let share = f64::from(*weight) * servers as f64 / total * 100.0;
                assert!((share - f64::from(percent)).abs() < 0.6, "{groups:?}: {share} instead of {percent}");
            }
        }
    }

    #[test]
    fn weights_are_none_only_for_no_share_and_never_too_large() {
        assert_eq!(server_weights(&[(0, 2), (0, 3)]), [0, 0]);
        assert_eq!(server_weights(&[(1, 200), (99, 1)]), [1, 256]);
        assert_eq!(server_weights(&[(100, 0), (0, 1)]), [0, 0]);
    }
}
