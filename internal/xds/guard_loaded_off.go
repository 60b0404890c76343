//go:build unguarded_loaded

package xds

const guardLoaded = false
