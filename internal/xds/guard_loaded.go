//go:build !unguarded_loaded

package xds

// guardLoaded keeps streams waiting until the store is loaded.
const guardLoaded = true
