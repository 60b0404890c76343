//go:build unguarded_parking

package xds

const guardParking = false
