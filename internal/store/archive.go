package store

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-json-experiment/json"
)

// A backup, version 1:
//
//	18 bytes  "fairlead backup 1\n"
//	4 bytes   the length of the header, big-endian
//	…         the header, JSON; nothing in it is secret
//	chunks    4 bytes: the length, big-endian, the highest bit set on the last one; the ciphertext
//
// The chunks are AES-256-GCM under a key that is derived from the store's root key
// and the header's salt. The nonce of each is its number; the header, and whether
// it is the last one, are authenticated with it. So a backup that was altered, cut
// short, put together from two, or made by somebody without the key-encryption key
// does not open. What is in the chunks, one after the other, are records: lengths
// and revision as varints, key, value.
const (
	archiveMagic = "fairlead backup 1\n"
	chunkSize    = 64 << 10
	lastChunk    = 1 << 31
	maxHeader    = 64 << 10
	maxKeyLength = 16 << 10
	maxValue     = 64 << 20 // more than etcd takes
	saltSize     = 32
)

// archiveHeader says what a backup is of, and has what opens it but for the
// key-encryption key.
type archiveHeader struct {
	Schema   int       `json:"schema"`
	Lineage  string    `json:"lineage"`
	Revision int64     `json:"revision"`
	Made     time.Time `json:"made"`
	Keyring  keyring   `json:"keyring"`
	Salt     []byte    `json:"salt"`
}

// archived is a key of the store in a backup.
type archived struct {
	key      string
	revision int64 // of its newest write
	value    []byte
}

// archiveCipher seals or opens the chunks of one backup.
type archiveCipher struct {
	aead   cipher.AEAD
	header [sha256.Size]byte
	chunk  uint64
}

func newArchiveCipher(root []byte, salt, header []byte) (*archiveCipher, error) {
	key, err := hkdf.Key(sha256.New, root, salt, "fairlead backup v1", dataKeySize)
	if err != nil {
		return nil, fmt.Errorf("derive the key of a backup: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &archiveCipher{aead: aead, header: sha256.Sum256(header)}, err
}

// next is the nonce of the next chunk and what is authenticated with it.
func (c *archiveCipher) next(last bool) (nonce, with []byte) {
	nonce = binary.BigEndian.AppendUint64(make([]byte, 4, 12), c.chunk)
	c.chunk++
	with = append(c.header[:], 0)
	if last {
		with[sha256.Size] = 1
	}
	return nonce, with
}

// archiveWriter writes a backup.
type archiveWriter struct {
	w      io.Writer
	cipher *archiveCipher
	plain  []byte
}

// newArchive begins a backup; the salt is made here.
func newArchive(w io.Writer, header archiveHeader, root []byte) (*archiveWriter, error) {
	header.Salt = make([]byte, saltSize)
	rand.Read(header.Salt) // never fails
	text, err := json.Marshal(&header, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("write the header of a backup: %w", err)
	}
	c, err := newArchiveCipher(root, header.Salt, text)
	if err != nil {
		return nil, err
	}
	begin := binary.BigEndian.AppendUint32([]byte(archiveMagic), uint32(len(text)))
	_, err = w.Write(append(begin, text...))
	return &archiveWriter{w: w, cipher: c}, err
}

func (a *archiveWriter) put(r archived) error {
	a.plain = binary.AppendUvarint(a.plain, uint64(len(r.key)))
	a.plain = binary.AppendUvarint(a.plain, uint64(r.revision))
	a.plain = binary.AppendUvarint(a.plain, uint64(len(r.value)))
	a.plain = append(append(a.plain, r.key...), r.value...)
	for len(a.plain) > chunkSize {
		if err := a.write(a.plain[:chunkSize], false); err != nil {
			return err
		}
		a.plain = append(a.plain[:0], a.plain[chunkSize:]...)
	}
	return nil
}

// close writes the last chunk, without which a backup is not whole.
func (a *archiveWriter) close() error { return a.write(a.plain, true) }

func (a *archiveWriter) write(plain []byte, last bool) error {
	nonce, with := a.cipher.next(last)
	sealed := a.cipher.aead.Seal(make([]byte, 4), nonce, plain, with)
	length := uint32(len(sealed) - 4)
	if last {
		length |= lastChunk
	}
	binary.BigEndian.PutUint32(sealed, length)
	_, err := a.w.Write(sealed)
	return err
}

// archiveReader reads a backup. What it returns is authentic; that it is whole is
// known at io.EOF, and not before.
type archiveReader struct {
	header archiveHeader
	plain  *bufio.Reader // over chunks
}

// openArchive reads the header. The root key that opens the rest is found by it.
func openArchive(r io.Reader, root func(archiveHeader) ([]byte, error)) (*archiveReader, error) {
	in := bufio.NewReaderSize(r, chunkSize)
	begin := make([]byte, len(archiveMagic)+4)
	if _, err := io.ReadFull(in, begin); err != nil || string(begin[:len(archiveMagic)]) != archiveMagic {
		return nil, fmt.Errorf("it does not begin as a backup of this version does: %w", ErrBackup)
	}
	length := binary.BigEndian.Uint32(begin[len(archiveMagic):])
	if length > maxHeader {
		return nil, fmt.Errorf("its header is too long: %w", ErrBackup)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(in, text); err != nil {
		return nil, fmt.Errorf("it ends in its header: %w", ErrBackup)
	}
	a := &archiveReader{}
	if err := json.Unmarshal(text, &a.header, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("its header cannot be read: %w: %w", err, ErrBackup)
	}
	if len(a.header.Salt) != saltSize {
		return nil, fmt.Errorf("its header has no salt: %w", ErrBackup)
	}
	secret, err := root(a.header)
	if err != nil {
		return nil, err
	}
	c, err := newArchiveCipher(secret, a.header.Salt, text)
	if err != nil {
		return nil, err
	}
	a.plain = bufio.NewReaderSize(&chunkReader{in: in, cipher: c}, chunkSize)
	return a, nil
}

// chunkReader opens chunks as they are read.
type chunkReader struct {
	in     *bufio.Reader
	cipher *archiveCipher
	plain  []byte
	whole  bool
}

func (c *chunkReader) Read(p []byte) (int, error) {
	for len(c.plain) == 0 {
		if c.whole {
			return 0, io.EOF
		}
		if err := c.open(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.plain)
	c.plain = c.plain[n:]
	return n, nil
}

func (c *chunkReader) open() error {
	var head [4]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return fmt.Errorf("it is cut short: %w", ErrBackup)
	}
	length := binary.BigEndian.Uint32(head[:])
	last := length&lastChunk != 0
	length &^= lastChunk
	if length > chunkSize+uint32(c.cipher.aead.Overhead()) {
		return fmt.Errorf("chunk %d is too long: %w", c.cipher.chunk, ErrBackup)
	}
	sealed := make([]byte, length)
	if _, err := io.ReadFull(c.in, sealed); err != nil {
		return fmt.Errorf("it is cut short: %w", ErrBackup)
	}
	number := c.cipher.chunk
	nonce, with := c.cipher.next(last)
	plain, err := c.cipher.aead.Open(nil, nonce, sealed, with)
	if err != nil {
		return fmt.Errorf("chunk %d is damaged or was altered: %w", number, ErrBackup)
	}
	c.plain, c.whole = plain, last
	if _, err := c.in.ReadByte(); last && !errors.Is(err, io.EOF) {
		return fmt.Errorf("something follows its end: %w", ErrBackup)
	} else if !last && err == nil {
		return c.in.UnreadByte()
	}
	return nil
}

// next is the next record; io.EOF behind the last one.
func (a *archiveReader) next() (r archived, err error) {
	length, err := binary.ReadUvarint(a.plain)
	if errors.Is(err, io.EOF) && length == 0 {
		return r, io.EOF
	}
	var revision, size uint64
	if err == nil {
		revision, err = binary.ReadUvarint(a.plain)
	}
	if err == nil {
		size, err = binary.ReadUvarint(a.plain)
	}
	if err == nil && (length > maxKeyLength || size > maxValue || revision > 1<<62) {
		err = errors.New("a record is too long")
	}
	if err != nil {
		return r, broken(err)
	}
	text := make([]byte, length+size)
	if _, err := io.ReadFull(a.plain, text); err != nil {
		return r, broken(err)
	}
	return archived{key: string(text[:length]), revision: int64(revision), value: text[length:]}, nil
}

// broken is what is wrong with the inside of a backup that is authentic.
func broken(err error) error {
	if errors.Is(err, ErrBackup) {
		return err
	}
	return fmt.Errorf("a record cannot be read: %w: %w", err, ErrBackup)
}
