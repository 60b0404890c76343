//go:build unguarded_shrink

package xds

const guardShrink = false
