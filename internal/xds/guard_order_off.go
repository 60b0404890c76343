//go:build unguarded_order

package xds

const guardOrder = false
