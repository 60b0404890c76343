//go:build !unguarded_shrink

package xds

// guardShrink holds removals that nothing explains.
const guardShrink = true
