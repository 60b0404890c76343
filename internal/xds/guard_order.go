//go:build !unguarded_order

package xds

// guardOrder sends nothing that names what does not stand.
const guardOrder = true
