//go:build unguarded_endpoints

package xds

const guardEndpoints = false
