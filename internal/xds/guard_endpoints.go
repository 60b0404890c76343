//go:build !unguarded_endpoints

package xds

// guardEndpoints sends a changed cluster's endpoints again.
const guardEndpoints = true
