//go:build unguarded_ask

package xds

const guardAsk = false
