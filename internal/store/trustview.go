package store

import (
	"encoding/pem"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/internal/mesh"
)

func encodeKey(pkcs8 []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// serve puts what a mesh names into its view. Its revision is the newest of all
// that this is made from, even if nothing of it is different: other servers, and
// this one after a restart, must come to the same.
func (c *cache) serve(b *batch, name mesh.Name) {
	view := c.views[name]
	if d := b.drafts[name]; d != nil {
		view = d.view
	}
	if view == nil {
		return
	}
	t, revision := &c.trust, view.Revision
	certificates, authorities := map[string]*mesh.Certificate{}, map[string]*mesh.Authority{}
	for arn := range t.names[name].certificates {
		certificate, newest := t.certificate(arn)
		if certificate != nil {
			certificates[arn] = certificate
		}
		revision = max(revision, newest)
	}
	for arn := range t.names[name].authorities {
		authority, newest := t.anchor(arn)
		if old := view.Authorities[arn]; authority != nil && old != nil && *old == *authority {
			authority = old
		}
		if authority != nil {
			authorities[arn] = authority
		}
		revision = max(revision, newest)
	}
	var own *mesh.Authority
	if t.names[name].own {
		var newest int64
		if own, newest = t.own(name); own != nil && view.Own != nil && *view.Own == *own {
			own = view.Own
		}
		revision = max(revision, newest)
	}
	if revision == view.Revision && own == view.Own && maps.Equal(certificates, view.Certificates) && maps.Equal(authorities, view.Authorities) {
		return
	}
	view = c.draft(b, name).view
	view.Certificates, view.Authorities, view.Own, view.Revision = certificates, authorities, own, revision
}

// certificate is a certificate with the CRLs of its chain, and the newest
// revision of what it is made from; nil if it is not there or not issued.
func (t *trust) certificate(arn string) (made *mesh.Certificate, newest int64) {
	from := t.certificates[arn]
	if from == nil || from.Value == nil {
		return nil, 0
	}
	v, newest := from.Value, from.Revision
	if v.Chain == "" || from.keyRevision == 0 {
		return nil, newest
	}
	crls, newer := t.crls(v.Issuers, false)
	if v.NoCRLs != "" {
		crls = ""
	}
	newest = max(newest, newer)
	roots := v.Roots
	if root := t.authorities[v.Root]; root != nil && roots != "" {
		// The root's own word: while its key is exchanged there are two, and after
		// that the old one is not trusted, whoever still chains to it.
		newest = max(newest, root.Revision)
		if root.Value.Roots != "" {
			roots = root.Value.Roots
		}
	}
	next := &mesh.Certificate{
		ARN: arn, Revision: from.keyRevision, Chain: v.Chain, Key: from.key, Roots: roots, CRLs: crls, Root: v.Root,
		Names: v.Names, Serial: v.Serial, NotBefore: v.NotBefore, NotAfter: v.NotAfter,
	}
	if old := from.made; old == nil || old.Revision != next.Revision || old.Roots != next.Roots || old.CRLs != next.CRLs || old.Root != next.Root || old.Chain != next.Chain {
		from.made = next
	}
	return from.made, newest
}

// anchor is a root as a trust anchor, with the CRLs of all authorities below it,
// and the newest revision of what it is made from; nil if it is not there.
func (t *trust) anchor(arn string) (made *mesh.Authority, newest int64) {
	root := t.authorities[arn]
	if root == nil {
		return nil, 0
	}
	tree := t.below(arn)
	crls, newest := t.crls(tree, true)
	if root.Value.Gone || root.Value.Roots == "" || !root.Value.Root {
		return nil, newest
	}
	return &mesh.Authority{ARN: arn, Revision: root.Revision, Roots: root.Value.Roots, CRLs: crls}, newest
}

// MeshKey is a mesh as Authority.Mesh has it.
func MeshKey(name mesh.Name) string { return name.Owner + "/" + name.Mesh }

// own is the trust in a mesh's own authorities, the newest and those before it
// that hold still, under the ARN of the newest; nil: there is none. An authority
// that somebody deletes is not trusted from then on.
func (t *trust) own(name mesh.Name) (made *mesh.Authority, newest int64) {
	key := MeshKey(name)
	listed := true
	for _, arn := range slices.Sorted(maps.Keys(t.authorities)) {
		if t.authorities[arn].Value.Mesh != key {
			continue
		}
		one, revision := t.anchor(arn)
		newest = max(newest, revision, t.authorities[arn].Revision)
		if one == nil || t.authorities[arn].Value.Status == statusDeleted {
			continue
		}
		if made == nil {
			made = &mesh.Authority{}
		}
		if one.Revision > made.Revision {
			made.ARN, made.Revision = arn, one.Revision
		}
		listed = listed && one.CRLs != ""
		made.Roots += one.Roots
		made.CRLs += one.CRLs
	}
	if made != nil && !listed {
		made.CRLs = "" // an Envoy that has the lists of one authority wants those of each
	}
	return made, newest
}

// statusDeleted is Private CA's status of what can still be restored.
const statusDeleted = "DELETED"

// below are the ARNs of an authority and of those that it has signed, directly
// or through others, in order.
func (t *trust) below(arn string) []string {
	tree := []string{arn}
	for i := 0; i < len(tree); i++ {
		for child, o := range t.authorities {
			if slices.Contains(o.Value.Parents, tree[i]) && !slices.Contains(tree, child) {
				tree = append(tree, child)
			}
		}
	}
	slices.Sort(tree)
	return tree
}

// crls are the CRLs of authorities, PEM, and the newest revision of what they are
// made from. If one is missing there are none: with all but one an Envoy would
// refuse every certificate below that one. An authority that is gone has none, and
// what it has signed is to be refused. With whole, authorities that are not known
// here count, too.
func (t *trust) crls(of []string, whole bool) (text string, newest int64) {
	var all strings.Builder
	complete := true
	for _, arn := range of {
		if a := t.authorities[arn]; a != nil {
			newest = max(newest, a.Revision)
			if a.Value.Gone {
				continue
			}
		}
		list := t.lists[arn]
		if list == nil {
			complete = complete && whole && t.unsigned(arn)
			continue
		}
		newest = max(newest, list.Revision)
		complete = complete && list.Value.CRL != "" && (!whole || len(list.Value.Others) == 0)
		all.WriteString(list.Value.CRL)
	}
	if !complete || len(of) == 0 {
		return "", newest
	}
	return all.String(), newest
}

// unsigned says whether an authority has no certificate yet, so that there is
// nothing below it.
func (t *trust) unsigned(arn string) bool {
	a := t.authorities[arn]
	return a != nil && a.Value.Roots == "" && !a.Value.Gone && a.Value.NotAfter.IsZero()
}
