package awsapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Major types of CBOR (RFC 8949), and what else Smithy RPC v2 CBOR has of it.
const (
	cborUint = iota
	cborNegative
	cborBytes
	cborText
	cborList
	cborMap
	cborTag
	cborSimple

	cborTimeTag   = 1
	cborFalse     = 20
	cborTrue      = 21
	cborNull      = 22
	cborUndefined = 23
	cborHalf      = 25 // a float's number of bytes, as heads have it
	cborSingle    = 26
	cborDouble    = 27
	cborBreak     = 0xff
)

// cborHead is the head of an item.
type cborHead struct {
	major      byte
	info       byte   // the low five bits
	n          uint64 // the number, length or bits that info stands for
	size       int    // bytes of the head itself
	indefinite bool
}

// errCBOREnd: the document ends within an item.
var errCBOREnd = errors.New("it ends too early")

// readCBORHead reads the head at the start of data. It is the one place that
// reads lengths; nothing is allocated for them.
func readCBORHead(data []byte) (cborHead, error) {
	if len(data) == 0 {
		return cborHead{}, errCBOREnd
	}
	h := cborHead{major: data[0] >> 5, info: data[0] & 31, size: 1}
	switch {
	case h.info < 24:
		h.n = uint64(h.info)
		return h, nil
	case h.info == 31 && h.major >= cborBytes && h.major <= cborMap:
		h.indefinite = true
		return h, nil
	case h.info > 27:
		return h, fmt.Errorf("there is no item %#02x", data[0])
	}
	width := 1 << (h.info - 24)
	if len(data) < 1+width {
		return h, errCBOREnd
	}
	var padded [8]byte
	copy(padded[8-width:], data[1:1+width])
	h.n, h.size = binary.BigEndian.Uint64(padded[:]), 1+width
	return h, nil
}

// checkCBOR reads the whole document before any of it is used. It takes what
// Smithy RPC v2 CBOR has and no more; it does not look for duplicate members,
// which the decoder does.
func checkCBOR(data []byte) error {
	c := cborChecker{data: data}
	if len(data) == 0 {
		return errors.New("is empty")
	}
	err := c.item(0)
	switch {
	case errors.Is(err, errTooDeep), errors.Is(err, errTooWide):
		return err
	case err != nil:
		return fmt.Errorf("is not valid CBOR: %w, at byte %d", err, c.at)
	case c.at < len(data):
		return errors.New("has something behind the end of its CBOR document")
	}
	return nil
}

var (
	errTooDeep = fmt.Errorf("is nested more than %d levels deep", maxDepth)
	errTooWide = fmt.Errorf("has an object of more than %d members", maxMembers)
)

type cborChecker struct {
	data []byte
	at   int
}

func (c *cborChecker) item(depth int) error {
	h, err := readCBORHead(c.data[c.at:])
	if err != nil {
		return err
	}
	switch h.major {
	case cborBytes, cborText:
		return c.text(h)
	case cborList, cborMap:
		if depth == maxDepth {
			return errTooDeep
		}
		return c.parts(h, depth+1)
	case cborTag:
		return c.time(h)
	case cborSimple:
		return c.simple(h)
	}
	c.at += h.size
	return nil
}

// text checks a text or bytes, in one piece or in chunks.
func (c *cborChecker) text(h cborHead) error {
	if !h.indefinite {
		return c.piece(h)
	}
	for c.at += h.size; ; {
		if c.broken() {
			return nil
		}
		chunk, err := readCBORHead(c.data[c.at:])
		if err != nil {
			return err
		}
		if chunk.major != h.major || chunk.indefinite {
			return errors.New("a chunk of a string is something else")
		}
		if err := c.piece(chunk); err != nil {
			return err
		}
	}
}

func (c *cborChecker) piece(h cborHead) error {
	rest := c.data[c.at+h.size:]
	if h.n > uint64(len(rest)) {
		return errCBOREnd
	}
	if h.major == cborText {
		text := rest[:h.n]
		if !utf8.Valid(text) {
			return errors.New("a string is not UTF-8")
		}
		if bytes.IndexByte(text, 0) >= 0 {
			return errors.New("a string must not contain a NUL character")
		}
	}
	c.at += h.size + int(h.n)
	return nil
}

// broken steps over the end of something of indefinite length.
func (c *cborChecker) broken() bool {
	if c.at < len(c.data) && c.data[c.at] == cborBreak {
		c.at++
		return true
	}
	return false
}

func (c *cborChecker) parts(h cborHead, depth int) error {
	c.at += h.size
	for i := uint64(0); h.indefinite || i < h.n; i++ {
		if h.indefinite && c.broken() {
			return nil
		}
		if h.major == cborMap {
			if i == maxMembers {
				return errTooWide
			}
			if key, err := readCBORHead(c.data[c.at:]); err != nil {
				return err
			} else if key.major != cborText {
				return errors.New("the name of a member is not a string")
			} else if err := c.text(key); err != nil {
				return err
			}
		}
		if err := c.item(depth); err != nil {
			return err
		}
	}
	return nil
}

// time checks a tag: only times have one here.
func (c *cborChecker) time(h cborHead) error {
	if h.n != cborTimeTag {
		return fmt.Errorf("the tag %d is not understood", h.n)
	}
	inner, err := readCBORHead(c.data[c.at+h.size:])
	if err != nil {
		return err
	}
	switch {
	case inner.major == cborUint, inner.major == cborNegative:
	case inner.major == cborSimple && inner.info >= cborHalf:
	default:
		return errors.New("a time is not a number of seconds")
	}
	c.at += h.size
	return c.item(0)
}

func (c *cborChecker) simple(h cborHead) error {
	switch {
	case h.info >= cborFalse && h.info <= cborUndefined:
	case h.info >= cborHalf:
		if f := h.float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return errors.New("a number is not finite")
		}
	default:
		return fmt.Errorf("the simple value %d is not understood", h.n)
	}
	c.at += h.size
	return nil
}

// float is the number of a head of half, single or double precision.
func (h cborHead) float() float64 {
	switch h.info {
	case cborSingle:
		return float64(math.Float32frombits(uint32(h.n)))
	case cborDouble:
		return math.Float64frombits(h.n)
	}
	exponent, fraction := int(h.n>>10&31), float64(h.n&1023)
	f := math.Ldexp(fraction/1024+1, exponent-15)
	switch exponent {
	case 0:
		f = math.Ldexp(fraction, -24)
	case 31:
		f = math.Inf(1)
		if fraction != 0 {
			f = math.NaN()
		}
	}
	if h.n&0x8000 != 0 {
		f = -f
	}
	return f
}

// cborDocument reads CBOR that checkCBOR has found good.
type cborDocument struct {
	data []byte
	at   int
	open []cborOpen
}

// cborOpen is a list or an object that has begun.
type cborOpen struct {
	left       uint64 // items to come; names count
	indefinite bool
}

func (d *cborDocument) head() cborHead {
	h, err := readCBORHead(d.data[d.at:])
	if err != nil {
		panic("awsapi: CBOR that was good is bad: " + err.Error())
	}
	return h
}

func (d *cborDocument) peek() kind {
	if len(d.open) > 0 {
		top := d.open[len(d.open)-1]
		if top.indefinite && d.data[d.at] == cborBreak || !top.indefinite && top.left == 0 {
			return endKind
		}
	}
	h := d.head()
	switch h.major {
	case cborUint, cborNegative:
		return numberKind
	case cborBytes:
		return bytesKind
	case cborText:
		return textKind
	case cborList:
		return listKind
	case cborMap:
		return objectKind
	case cborTag:
		return timeKind
	}
	switch h.info {
	case cborFalse, cborTrue:
		return boolKind
	case cborNull, cborUndefined:
		return nullKind
	}
	return numberKind
}

func (d *cborDocument) next() scalar {
	kind := d.peek()
	if kind == endKind {
		top := d.open[len(d.open)-1]
		d.open = d.open[:len(d.open)-1]
		if top.indefinite {
			d.at++
		}
		d.done()
		return scalar{}
	}
	h := d.head()
	d.at += h.size
	var out scalar
	switch kind {
	case listKind:
		d.open = append(d.open, cborOpen{h.n, h.indefinite})
		return out
	case objectKind:
		d.open = append(d.open, cborOpen{2 * h.n, h.indefinite})
		return out
	case boolKind:
		out.yes = h.info == cborTrue
	case textKind, bytesKind:
		out.text = d.text(h)
	case timeKind:
		h = d.head()
		d.at += h.size
		out.text = h.number()
	case numberKind:
		out.text = h.number()
	}
	d.done()
	return out
}

// done counts an item that has been read whole.
func (d *cborDocument) done() {
	if n := len(d.open); n > 0 && !d.open[n-1].indefinite {
		d.open[n-1].left--
	}
}

// text copies what follows a head: the body must not live as long as a part.
func (d *cborDocument) text(h cborHead) string {
	if !h.indefinite {
		d.at += int(h.n)
		return string(d.data[d.at-int(h.n) : d.at])
	}
	var b strings.Builder
	for d.data[d.at] != cborBreak {
		chunk := d.head()
		d.at += chunk.size + int(chunk.n)
		b.Write(d.data[d.at-int(chunk.n) : d.at])
	}
	d.at++
	return b.String()
}

// number writes a number as JSON has it: a float with a point.
func (h cborHead) number() string {
	switch {
	case h.major == cborUint:
		return strconv.FormatUint(h.n, 10)
	case h.major == cborNegative && h.n == math.MaxUint64:
		return "-18446744073709551616"
	case h.major == cborNegative:
		return "-" + strconv.FormatUint(h.n+1, 10)
	}
	text := strconv.FormatFloat(h.float(), 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

func (d *cborDocument) skip() string {
	kind, depth := d.peek(), len(d.open)
	text := d.next().text
	for len(d.open) > depth {
		d.next()
	}
	switch kind {
	case textKind:
		return strconv.Quote(text)
	case numberKind, timeKind:
		return text
	}
	return ""
}
